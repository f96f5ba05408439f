//! OPTION: RLIMIT_MODE of the context, HUGE_PAGES of an address space.
//!
//! Imports allowed: actors, storage, the client crate's wire.

use ioasd_client::wire::command::Command;
use ioasd_client::wire::uapi::{IommuOption, OPTION_GET, OPTION_HUGE_PAGES, OPTION_RLIMIT_MODE, OPTION_SET};

use super::{Call, Done, Serve, check_no_fds, check_reserved};
use crate::actors::client_context::accounting::RlimitMode;
use crate::error::Errno;
use crate::storage::io_pagetable::LargePages;
use crate::storage::refusal::Refusal;

impl Serve for IommuOption {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_reserved(Self::NAME, self.reserved.into())?;
        let value = match self.option_id {
            OPTION_RLIMIT_MODE => rlimit_mode(&self, &call)?,
            OPTION_HUGE_PAGES => huge_pages(&self, &call).await?,
            other => return Err(unsupported(&format!("there is no option {other}"))),
        };
        Ok(Done::value(Self { value, ..self }))
    }
}

fn rlimit_mode(option: &IommuOption, call: &Call<'_>) -> Result<u64, Refusal> {
    if option.object_id.get() != 0 {
        return Err(unsupported("RLIMIT_MODE is of the context: object_id must be 0"));
    }
    match option.op {
        OPTION_GET => Ok(u64::from(call.client.rlimit_mode() == RlimitMode::Mm)),
        OPTION_SET => {
            call.client.may_choose_rlimit_mode(call.sender.as_ref())?;
            call.client.set_rlimit_mode(switch(option.value, RlimitMode::User, RlimitMode::Mm)?);
            Ok(option.value)
        }
        other => Err(unsupported(&format!("there is no operation {other}"))),
    }
}

async fn huge_pages(option: &IommuOption, call: &Call<'_>) -> Result<u64, Refusal> {
    call.client.require_ioas(option.object_id)?;
    match option.op {
        OPTION_GET => {
            let large_pages = call.client.large_pages(option.object_id).await?;
            Ok(u64::from(large_pages == LargePages::On))
        }
        OPTION_SET => {
            let large_pages = switch(option.value, LargePages::Off, LargePages::On)?;
            call.client.set_large_pages(option.object_id, large_pages).await?;
            Ok(option.value)
        }
        other => Err(unsupported(&format!("there is no operation {other}"))),
    }
}

fn switch<T>(value: u64, off: T, on: T) -> Result<T, Refusal> {
    match value {
        0 => Ok(off),
        1 => Ok(on),
        other => {
            let text = format!("OPTION takes 0 or 1, not {other:#x}");
            Err(Refusal::new(Errno::INVAL, "option-value", text))
        }
    }
}

fn unsupported(what: &str) -> Refusal {
    Refusal::new(Errno::OPNOTSUPP, "option-unsupported", format!("OPTION: {what}"))
}
