//! GET_HW_INFO: what tables of a software device can be.
//!
//! Imports allowed: actors, domains::spec, the client crate's wire.

use ioasd_client::units::Flag;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::HW_INFO_SOFTWARE;
use ioasd_client::wire::record::{Record, TableAbilities, store_all};
use ioasd_client::wire::uapi::{GetHwInfo, HW_INFO_TYPE_VALID};

use super::array::Array;
use super::{Call, Done, Serve, check_flags, check_reserved};
use crate::domains::spec::TableSpec;
use crate::error::Errno;
use crate::storage::refusal::Refusal;

/// The type that stands for any.
const ANY: u32 = 0;

impl Serve for GetHwInfo {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, HW_INFO_TYPE_VALID)?;
        check_reserved(Self::NAME, u32::from(self.reserved) | u32::from(self.reserved2))?;
        let spec = call.client.device_tables(self.dev_id.into())?;
        check_type(&self)?;
        let array = Array::of(Self::NAME, call.payload, call.fds, self.data_uptr)?;
        let payload = array.give_back_filled(&store_all(&[abilities(spec)]), self.data_len)?;
        let data_len = u32::try_from(TableAbilities::BYTES).unwrap_or(u32::MAX);
        let told = Self {
            data_len,
            data_type: HW_INFO_SOFTWARE,
            out_max_pasid_log2: 0,
            out_capabilities: 0,
            ..self
        };
        Ok(Done::value(told).with_payload(payload))
    }
}

fn check_type(info: &GetHwInfo) -> Result<(), Refusal> {
    let wanted = match Flag::of(info.flags, HW_INFO_TYPE_VALID) {
        Flag::Set => info.data_type,
        Flag::Clear => ANY,
    };
    if [ANY, HW_INFO_SOFTWARE].contains(&wanted) {
        return Ok(());
    }
    let text =
        format!("a software device has no information of type {wanted:#x}: ask for {HW_INFO_SOFTWARE:#x}");
    Err(Refusal::new(Errno::OPNOTSUPP, "hw-info-unknown", text))
}

fn abilities(spec: TableSpec) -> TableAbilities {
    TableAbilities {
        format: spec.format().number(),
        flags: 0,
        start: spec.aperture().start(),
        last: spec.aperture().last(),
        page_sizes: spec.page_sizes().bitmap(),
    }
}
