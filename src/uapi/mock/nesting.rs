//! MD_CHECK_IOTLB, DEV_CHECK_CACHE, PASID_ATTACH, PASID_REPLACE, PASID_DETACH, PASID_CHECK_HWPT.
//!
//! Imports allowed: actors, the client crate's wire.

use ioasd_client::ids::ObjectId;
use ioasd_client::wire::mock::TestCmd;

use crate::actors::objects::attachment::Pasid;
use crate::storage::refusal::Refusal;
use crate::uapi::{Call, Done};

pub(super) fn check_iotlb(command: TestCmd, call: &Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let hwpt = ObjectId::new(command.id);
    call.client.mock_check_iotlb(hwpt, command.field(16), command.field(20))?;
    Ok(Done::nothing())
}

pub(super) fn check_cache(command: TestCmd, call: &Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let device = ObjectId::new(command.id);
    call.client.mock_check_cache(device, command.field(16), command.field(20))?;
    Ok(Done::nothing())
}

/// The test object, the PASID, and the HWPT or address space.
fn pasid(command: &TestCmd) -> (ObjectId, Pasid, ObjectId) {
    (ObjectId::new(command.id), Pasid::new(command.field(16)), command.field(20))
}

pub(super) async fn attach(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (stdev, pasid, target) = pasid(&command);
    let hwpt = call.client.mock_pasid_attach(stdev, pasid, target).await?;
    Ok(Done::value(command.with(20, hwpt)))
}

pub(super) async fn replace(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (stdev, pasid, target) = pasid(&command);
    let hwpt = call.client.mock_pasid_replace(stdev, pasid, target).await?;
    Ok(Done::value(command.with(20, hwpt)))
}

pub(super) async fn detach(command: TestCmd, call: Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (stdev, pasid, _) = pasid(&command);
    call.client.mock_pasid_detach(stdev, pasid).await?;
    Ok(Done::nothing())
}

pub(super) fn check(command: TestCmd, call: &Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let (stdev, pasid, hwpt) = pasid(&command);
    call.client.mock_pasid_check(stdev, pasid, hwpt)?;
    Ok(Done::nothing())
}
