//! DEVICE_CREATE, DEVICE_ATTACH, DEVICE_DETACH, DOMAIN_EXPORT.
//!
//! Imports allowed: actors, the client crate's wire.

use ioasd_client::ids::DeviceId;
use ioasd_client::units::Flag;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::{
    DEVICE_OWN_IOMMU, DeviceAttach, DeviceCreate, DeviceDetach, DeviceFormat, DomainExport,
};

use super::{Call, Done, Serve, check_flags, check_no_fds, check_reserved};
use crate::actors::objects::Iommu;
use crate::error::Errno;
use crate::storage::refusal::Refusal;

impl Serve for DeviceCreate {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, DEVICE_OWN_IOMMU)?;
        match DeviceFormat::from_number(self.format) {
            Some(DeviceFormat::AmdV1) => {}
            None => {
                let text = format!("there is no page-table format {}: 1 is AMD v1", self.format);
                return Err(Refusal::new(Errno::OPNOTSUPP, "format-unknown", text));
            }
        }
        let iommu = match Flag::of(self.flags, DEVICE_OWN_IOMMU) {
            Flag::Set => Iommu::Own,
            Flag::Clear => Iommu::Shared,
        };
        let id = call.client.device_create(iommu)?;
        Ok(Done::value(Self { out_device_id: DeviceId::new(id.get()), ..self }))
    }
}

impl Serve for DeviceAttach {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        let pt_id = call.client.device_attach(self.device_id.into(), self.pt_id).await?;
        Ok(Done::value(Self { pt_id, ..self }))
    }
}

impl Serve for DeviceDetach {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        check_reserved(Self::NAME, self.reserved)?;
        call.client.device_detach(self.device_id.into()).await?;
        Ok(Done::value(self))
    }
}

impl Serve for DomainExport {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        check_reserved(Self::NAME, self.reserved)?;
        let channel = call.client.domain_export(self.hwpt_id.into()).await?;
        Ok(Done::value(self).with_fd(channel))
    }
}
