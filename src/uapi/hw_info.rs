//! GET_HW_INFO: what tables of a device can be.
//!
//! Imports allowed: actors, domains::spec, the client crate's wire.

use ioasd_client::units::Flag;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::mock::{HW_INFO_MOCK, MOCK_REGISTER, MockInfo};
use ioasd_client::wire::own::HW_INFO_SOFTWARE;
use ioasd_client::wire::record::{TableAbilities, store_all};
use ioasd_client::wire::uapi::{GetHwInfo, HW_CAP_DIRTY_TRACKING, HW_CAP_NO_ATS, HW_INFO_TYPE_VALID};

use super::array::Array;
use super::{Call, Done, Serve, check_flags, check_reserved};
use crate::actors::objects::{DeviceKind, DeviceObject};
use crate::domains::spec::{Recording, TableSpec};
use crate::error::Errno;
use crate::storage::refusal::Refusal;

/// The type that stands for any.
const ANY: u32 = 0;

/// What is told of a device.
struct Info {
    data_type: u32,
    data: Vec<u8>,
    max_pasid_log2: u8,
    capabilities: u64,
}

impl Serve for GetHwInfo {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, HW_INFO_TYPE_VALID)?;
        check_reserved(Self::NAME, u32::from(self.reserved) | u32::from(self.reserved2))?;
        let info = Info::of(&*call.client.device(self.dev_id.into())?);
        check_type(&self, info.data_type)?;
        let array = Array::of(Self::NAME, call.payload, call.fds, self.data_uptr)?;
        let payload = array.give_back_filled(&info.data, self.data_len)?;
        let told = Self {
            data_len: u32::try_from(info.data.len()).unwrap_or(u32::MAX),
            data_type: info.data_type,
            out_max_pasid_log2: info.max_pasid_log2,
            out_capabilities: info.capabilities,
            ..self
        };
        Ok(Done::value(told).with_payload(payload))
    }
}

fn check_type(info: &GetHwInfo, there: u32) -> Result<(), Refusal> {
    let wanted = match Flag::of(info.flags, HW_INFO_TYPE_VALID) {
        Flag::Set => info.data_type,
        Flag::Clear => ANY,
    };
    if [ANY, there].contains(&wanted) {
        return Ok(());
    }
    let text = format!("device {} has no information of type {wanted:#x}: ask for {there:#x}", info.dev_id);
    Err(Refusal::new(Errno::OPNOTSUPP, "hw-info-unknown", text))
}

impl Info {
    fn of(device: &DeviceObject) -> Self {
        match device.stats.kind {
            DeviceKind::Software => Self {
                data_type: HW_INFO_SOFTWARE,
                data: store_all(&[abilities(device.spec)]),
                max_pasid_log2: 0,
                capabilities: dirty_capability(device),
            },
            DeviceKind::Mock => Self {
                data_type: HW_INFO_MOCK,
                data: store_all(&[MockInfo { flags: 0, register: MOCK_REGISTER }]),
                max_pasid_log2: device
                    .pasids
                    .checked_ilog2()
                    .and_then(|log2| u8::try_from(log2).ok())
                    .unwrap_or(0),
                capabilities: HW_CAP_NO_ATS | dirty_capability(device),
            },
        }
    }
}

const fn dirty_capability(device: &DeviceObject) -> u64 {
    match device.recording {
        Recording::Nothing => 0,
        Recording::Writes => HW_CAP_DIRTY_TRACKING,
    }
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
