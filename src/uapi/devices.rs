//! DEVICE_CREATE, DEVICE_ATTACH, DEVICE_REPLACE, DEVICE_DETACH, DOMAIN_EXPORT.
//!
//! Imports allowed: actors, the client crate's wire.

use ioasd_client::formats::FormatId;
use ioasd_client::ids::DeviceId;
use ioasd_client::units::Flag;
use ioasd_client::wire::channels::DomainFaults;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::{
    DEVICE_OWN_IOMMU, DeviceAttach, DeviceCreate, DeviceDetach, DeviceReplace, DomainExport,
};

use super::{Call, Done, Serve, check_flags, check_no_fds, check_reserved};
use crate::actors::objects::Iommu;
use crate::error::Errno;
use crate::storage::refusal::Refusal;

impl Serve for DeviceCreate {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, DEVICE_OWN_IOMMU)?;
        let format = FormatId::from_number(self.format).ok_or_else(|| unknown_format(self.format))?;
        let iommu = match Flag::of(self.flags, DEVICE_OWN_IOMMU) {
            Flag::Set => Iommu::Own,
            Flag::Clear => Iommu::Shared,
        };
        let id = call.client.device_create(iommu, format)?;
        Ok(Done::value(Self { out_device_id: DeviceId::new(id.get()), ..self }))
    }
}

fn unknown_format(number: u32) -> Refusal {
    let known = FormatId::ALL.map(|format| format!("{} is {}", format.number(), format.name())).join(", ");
    let text = format!("there is no page-table format {number}: {known}");
    Refusal::new(Errno::OPNOTSUPP, "format-unknown", text)
}

impl Serve for DeviceAttach {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        let pt_id = call.client.device_attach(self.device_id.into(), self.pt_id).await?;
        Ok(Done::value(Self { pt_id, ..self }))
    }
}

impl Serve for DeviceReplace {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        let pt_id = call.client.device_replace(self.device_id.into(), self.pt_id).await?;
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

impl Serve for DomainFaults {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        check_reserved(Self::NAME, self.reserved)?;
        let channel = call.client.domain_faults(self.hwpt_id.into()).await?;
        Ok(Done::value(self).with_fd(channel))
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
