//! DESTROY, IOAS_ALLOC, IOAS_MAP_FILE, IOAS_COPY, IOAS_UNMAP, IOAS_NOIOMMU_GET_PA.
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

use ioasd_client::ids::IoasId;
use ioasd_client::units::{Flag, Iova, Permission};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::mock::BY_AREA;
use ioasd_client::wire::uapi::{
    Destroy, IoasAlloc, IoasCopy, IoasMapFile, IoasNoiommuGetPa, IoasUnmap, MAP_FIXED_IOVA, MAP_READABLE,
    MAP_WRITEABLE,
};

use super::{Call, Done, Serve, check_flags, check_no_fds};
use crate::actors::client_context::address_spaces::{FileSlice, Mapping};
use crate::error::Errno;
use crate::storage::io_pagetable::{
    Placement, check_copy_request, check_file_range, check_map_request, check_range, check_unmap_request,
};
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;

pub(super) const MAP_FLAGS: u32 = MAP_FIXED_IOVA | MAP_WRITEABLE | MAP_READABLE;

impl Serve for Destroy {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        call.client.destroy(self.id).await?;
        Ok(Done::nothing())
    }
}

impl Serve for IoasAlloc {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        let id = call.client.ioas_alloc()?;
        Ok(Done::value(Self { out_ioas_id: IoasId::new(id.get()), ..self }))
    }
}

impl Serve for IoasMapFile {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, MAP_FLAGS)?;
        let permission = check_map_request(self.iova, self.length, permission(self.flags));
        let permission = permission.map_err(|error| Refusal::of(&error))?;
        call.client.require_ioas(self.ioas_id.into())?;
        check_file_range(self.start, self.length).map_err(|error| Refusal::of(&error))?;
        let file = only_file(self.fd, call.fds)?;
        let slice = FileSlice { file, start: self.start, length: self.length };
        let mapping = Mapping { permission, placement: placement(self.flags, self.iova) };
        let iova = call.client.map_file(self.ioas_id.into(), slice, mapping, call.sender).await?;
        Ok(Done::value(Self { iova, ..self }))
    }
}

impl Serve for IoasCopy {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        let mock = if call.client.mock_hardware().is_some() { BY_AREA } else { 0 };
        check_flags(Self::NAME, self.flags, MAP_FLAGS | mock)?;
        let permission =
            check_copy_request(self.length, self.src_iova, self.dst_iova, permission(self.flags));
        let permission = permission.map_err(|error| Refusal::of(&error))?;
        call.client.require_ioas(self.src_ioas_id.into())?;
        let src_iova = match Flag::of(self.flags, BY_AREA) {
            Flag::Set => call.client.mock_address_in(self.src_ioas_id.into(), self.src_iova.get()).await?,
            Flag::Clear => self.src_iova,
        };
        let range = check_range(src_iova, self.length).map_err(|error| Refusal::of(&error))?;
        let mapping = Mapping { permission, placement: placement(self.flags, self.dst_iova) };
        let source = (self.src_ioas_id.into(), range);
        let dst_iova = call.client.copy(source, self.dst_ioas_id.into(), mapping).await?;
        Ok(Done::value(Self { dst_iova, ..self }))
    }
}

impl Serve for IoasUnmap {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        call.client.require_ioas(self.ioas_id.into())?;
        let request = check_unmap_request(self.iova, self.length).map_err(|error| Refusal::of(&error))?;
        let length = call.client.unmap(self.ioas_id.into(), request).await?;
        Ok(Done::value(Self { length, ..self }))
    }
}

impl Serve for IoasNoiommuGetPa {
    async fn serve(self, _: Call<'_>) -> Result<Done<Self>, Refusal> {
        let text = "there are no devices without IOMMU here";
        Err(Refusal::new(Errno::OPNOTSUPP, "noiommu-unsupported", text))
    }
}

pub(super) fn permission(flags: u32) -> Option<Permission> {
    Permission::from_flags(Flag::of(flags, MAP_READABLE), Flag::of(flags, MAP_WRITEABLE))
}

pub(super) const fn placement(flags: u32, iova: Iova) -> Placement {
    match Flag::of(flags, MAP_FIXED_IOVA) {
        Flag::Set => Placement::Fixed(iova),
        Flag::Clear => Placement::Any,
    }
}

/// The one descriptor of a MAP_FILE, which its `fd` names by place.
fn only_file(fd: i32, fds: Vec<ClientFd>) -> Result<ClientFd, Refusal> {
    let given = fds.len();
    match (fd, <[ClientFd; 1]>::try_from(fds)) {
        (0, Ok([file])) => Ok(file),
        _ => {
            let text = format!(
                "IOAS_MAP_FILE takes one descriptor with the message, and fd 0 to name it; the message has {given}, fd is {fd}"
            );
            Err(Refusal::new(Errno::BADF, "file-missing", text))
        }
    }
}
