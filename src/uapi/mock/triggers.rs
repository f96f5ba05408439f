//! TRIGGER_IOPF, TRIGGER_VEVENT.
//!
//! Imports allowed: actors, the client crate's wire.

use ioasd_client::wire::mock::TestCmd;

use crate::actors::client_context::mock::triggers::MockFault;
use crate::actors::objects::attachment::Pasid;
use crate::storage::refusal::Refusal;
use crate::uapi::{Call, Done};

pub(super) fn fault(command: TestCmd, call: &Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    let fault = MockFault {
        pasid: Pasid::new(command.field(20)),
        group: command.field(24),
        access: command.field(28),
        address: command.at_32,
    };
    call.client.mock_fault(command.field(16), fault)?;
    Ok(Done::nothing())
}

pub(super) fn vevent(command: TestCmd, call: &Call<'_>) -> Result<Done<TestCmd>, Refusal> {
    call.client.mock_vevent(command.field(16))?;
    Ok(Done::nothing())
}
