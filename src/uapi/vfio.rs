//! The VFIO container over an address space: VFIO_IOAS, CHECK_EXTENSION, SET_IOMMU, GET_INFO, MAP_DMA, UNMAP_DMA.
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

use ioasd_client::ids::{IoasId, ObjectId};
use ioasd_client::units::{ByteLen, Flag, Iova, Permission};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::record::{IovaBounds, store_all};
use ioasd_client::wire::vfio::{
    VFIO_DMA_CC, VFIO_IOAS_CLEAR, VFIO_IOAS_GET, VFIO_IOAS_SET, VFIO_MAP_READ, VFIO_MAP_WRITE, VFIO_TYPE1,
    VFIO_TYPE1V2, VFIO_UNMAP_ALL, VFIO_UNMAP_ALL_FLAG, VfioCheckExtension, VfioGetInfo, VfioIoas, VfioMapDma,
    VfioSetIommu, VfioUnmapDma,
};

use super::memory::file;
use super::{Call, Done, Serve};
use crate::actors::client_context::address_spaces::Mapping;
use crate::actors::client_context::process_memory::MemorySlice;
use crate::error::{Coded, Errno};
use crate::storage::io_pagetable::{
    LargePages, Placement, UnmapRequest, check_map_request, check_unmap_request, check_user_memory,
};
use crate::storage::refusal::Refusal;

impl Serve for VfioIoas {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        if self.reserved != 0 {
            return Err(unsupported("a reserved field is not zero"));
        }
        match self.op {
            VFIO_IOAS_GET => {
                let ioas_id = IoasId::new(call.client.vfio_ioas()?.get());
                Ok(Done::value(Self { ioas_id, ..self }))
            }
            VFIO_IOAS_SET => call.client.set_vfio_ioas(self.ioas_id.into()).map(|()| Done::nothing()),
            VFIO_IOAS_CLEAR => {
                call.client.clear_vfio_ioas();
                Ok(Done::nothing())
            }
            other => Err(unsupported(&format!("there is no operation {other}"))),
        }
    }
}

fn unsupported(what: &str) -> Refusal {
    Refusal::new(Errno::OPNOTSUPP, "vfio-unsupported", format!("VFIO_IOAS: {what}"))
}

impl Serve for VfioCheckExtension {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        let out_value = match self.extension {
            VFIO_TYPE1 | VFIO_TYPE1V2 | VFIO_UNMAP_ALL => 1,
            // No domain here can enforce it, so it holds where there is none.
            VFIO_DMA_CC => u32::from(!call.client.has_hwpts(call.client.vfio_ioas()?)?),
            _ => 0,
        };
        Ok(Done::value(Self { out_value, ..self }))
    }
}

impl Serve for VfioSetIommu {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        if !matches!(self.kind, VFIO_TYPE1 | VFIO_TYPE1V2) {
            return Err(invalid(&format!("there is no iommu {}: 1 and 3 are TYPE1 and TYPE1v2", self.kind)));
        }
        let ioas = call.client.vfio_ioas()?;
        if self.kind == VFIO_TYPE1 {
            call.client.set_large_pages(ioas, LargePages::Off).await?;
        }
        Ok(Done::nothing())
    }
}

impl Serve for VfioGetInfo {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        let ioas = call.client.vfio_ioas()?;
        let (ranges, alignment) = call.client.iova_ranges(ioas).await?;
        let out_page_sizes = call.client.page_sizes(ioas)?.max(alignment);
        let bounds: Vec<IovaBounds> =
            ranges.iter().map(|range| IovaBounds { start: range.start(), last: range.last() }).collect();
        let out_ranges = u32::try_from(bounds.len()).unwrap_or(u32::MAX);
        Ok(Done::value(Self { out_page_sizes, out_ranges, ..self }).with_payload(store_all(&bounds)))
    }
}

impl Serve for VfioMapDma {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        require_flags(Self::NAME, self.flags, VFIO_MAP_READ | VFIO_MAP_WRITE)?;
        let ioas = call.client.vfio_ioas()?;
        let read = Flag::of(self.flags, VFIO_MAP_READ);
        let permission = Permission::from_flags(read, Flag::of(self.flags, VFIO_MAP_WRITE));
        let permission = check_map_request(self.iova, self.length, permission.or(Some(Permission::Neither)));
        let permission = permission.map_err(|error| Refusal::of(&error))?;
        check_user_memory(self.vaddr, self.length).map_err(|error| Refusal::of(&error))?;
        let memory =
            MemorySlice { start: self.vaddr, length: self.length, file: file(call.payload, call.fds)? };
        let mapping = Mapping { permission, placement: Placement::Fixed(self.iova) };
        call.client.map_memory(ioas, memory, mapping, call.sender).await?;
        Ok(Done::nothing())
    }
}

impl Serve for VfioUnmapDma {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        require_flags(Self::NAME, self.flags, VFIO_UNMAP_ALL_FLAG)?;
        let ioas = call.client.vfio_ioas()?;
        let request = unmap_request(&self)?;
        if request != UnmapRequest::Everything {
            call.client.cut_out(ioas, request.range()).await?;
        }
        match unmapped(&call, ioas, request).await {
            Ok(length) => Ok(Done::value(Self { length, ..self })),
            Err(refusal) => Ok(Done::value(Self { length: ByteLen::new(0), ..self }).but(refusal)),
        }
    }
}

fn unmap_request(unmap: &VfioUnmapDma) -> Result<UnmapRequest, Refusal> {
    match Flag::of(unmap.flags, VFIO_UNMAP_ALL_FLAG) {
        Flag::Set if (unmap.iova, unmap.length) == (Iova::new(0), ByteLen::new(0)) => {
            Ok(UnmapRequest::Everything)
        }
        Flag::Set => Err(invalid("everything is unmapped, so address and length must be 0")),
        Flag::Clear => check_unmap_request(unmap.iova, unmap.length).map_err(|error| Refusal::of(&error)),
    }
}

/// Unmapping nothing is no error here.
async fn unmapped(call: &Call<'_>, ioas: ObjectId, request: UnmapRequest) -> Result<ByteLen, Refusal> {
    match call.client.unmap(ioas, request).await {
        Err(refusal) if refusal.errno() == Errno::NOENT => match call.client.maps_any(ioas, request).await? {
            true => Err(refusal),
            false => Ok(ByteLen::new(0)),
        },
        other => other,
    }
}

fn require_flags(command: &'static str, flags: u32, known: u32) -> Result<(), Refusal> {
    match flags & !known {
        0 => Ok(()),
        unknown => Err(invalid(&format!("{command} does not know the flags {unknown:#x}: clear them"))),
    }
}

fn invalid(text: &str) -> Refusal {
    Refusal::new(Errno::INVAL, "vfio-argument", text)
}
