//! ACCESS_CREATE, ACCESS_ATTACH, ACCESS_REPLACE, ACCESS_DETACH, ACCESS_PIN, ACCESS_UNPIN, ACCESS_RW.
//!
//! Notices to an access without a notice channel count as answered, so that an unmap of what it holds ends in EDEADLK,
//! which names the access.
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

use std::rc::Rc;

use ioasd_client::ids::{AccessId, ObjectId};
use ioasd_client::units::{ByteLen, Flag, Iova, IovaRange};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::{
    ACCESS_MAY_PIN, ACCESS_NOTICES, ACCESS_RW_MAX, ACCESS_WRITE, AccessAttach, AccessCreate, AccessDetach,
    AccessPin, AccessReplace, AccessRw, AccessUnpin,
};

use super::{Call, Done, Serve, check_flags, check_no_fds, check_reserved};
use crate::error::Errno;
use crate::storage::io_pagetable::{Transfer, check_range};
use crate::storage::ioas::AccessNeeds;
use crate::storage::refusal::Refusal;

impl Serve for AccessCreate {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, ACCESS_MAY_PIN | ACCESS_NOTICES)?;
        let needs = match Flag::of(self.flags, ACCESS_MAY_PIN) {
            Flag::Set => AccessNeeds::Pins,
            Flag::Clear => AccessNeeds::Copies,
        };
        let ioas = self.ioas_id.into();
        let created = |id: ObjectId| Done::value(Self { out_access_id: AccessId::new(id.get()), ..self });
        match Flag::of(self.flags, ACCESS_NOTICES) {
            Flag::Set => {
                let client = Rc::clone(call.client);
                let (id, notices) = client.access_create_with_notices(ioas, needs).await?;
                Ok(created(id).with_fd(notices))
            }
            Flag::Clear => {
                let answered = Box::new(|_| Box::pin(std::future::ready(())) as _);
                Ok(created(call.client.access_create(ioas, needs, answered).await?))
            }
        }
    }
}

impl Serve for AccessAttach {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        call.client.access_attach(self.access_id.into(), self.ioas_id.into()).await?;
        Ok(Done::value(self))
    }
}

impl Serve for AccessReplace {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        call.client.access_replace(self.access_id.into(), self.ioas_id.into()).await?;
        Ok(Done::value(self))
    }
}

impl Serve for AccessDetach {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        check_reserved(Self::NAME, self.reserved)?;
        call.client.access_detach(self.access_id.into()).await?;
        Ok(Done::value(self))
    }
}

impl Serve for AccessPin {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, ACCESS_WRITE)?;
        check_reserved(Self::NAME, self.reserved)?;
        let range = range(self.iova, self.length)?;
        call.client.access_pin(self.access_id.into(), range, direction(self.flags)).await?;
        Ok(Done::value(self))
    }
}

impl Serve for AccessUnpin {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, 0)?;
        check_reserved(Self::NAME, self.reserved)?;
        call.client.access_unpin(self.access_id.into(), range(self.iova, self.length)?).await?;
        Ok(Done::value(self))
    }
}

impl Serve for AccessRw {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_no_fds(Self::NAME, &call.fds)?;
        check_flags(Self::NAME, self.flags, ACCESS_WRITE)?;
        check_reserved(Self::NAME, self.reserved)?;
        let range = range(self.iova, self.length)?;
        if self.length.get() > ACCESS_RW_MAX as u64 {
            let text =
                format!("ACCESS_RW moves at most {ACCESS_RW_MAX} bytes at once, not {}", self.length.get());
            return Err(Refusal::new(Errno::TOOBIG, "transfer-too-long", text));
        }
        let payload = match direction(self.flags) {
            Transfer::Read => call.client.access_read(self.access_id.into(), range).await?,
            Transfer::Write => {
                let bytes = payload_of(call.payload, self.length)?;
                call.client.access_write(self.access_id.into(), self.iova, bytes).await?;
                Vec::new()
            }
        };
        Ok(Done::value(self).with_payload(payload))
    }
}

fn range(iova: Iova, length: ByteLen) -> Result<IovaRange, Refusal> {
    check_range(iova, length).map_err(|error| Refusal::of(&error))
}

const fn direction(flags: u32) -> Transfer {
    match Flag::of(flags, ACCESS_WRITE) {
        Flag::Set => Transfer::Write,
        Flag::Clear => Transfer::Read,
    }
}

fn payload_of(payload: &[u8], length: ByteLen) -> Result<Vec<u8>, Refusal> {
    if payload.len() as u64 == length.get() {
        return Ok(payload.to_vec());
    }
    let text = format!("{} bytes are to be written, the message carries {}", length.get(), payload.len());
    Err(Refusal::new(Errno::FAULT, "payload-length", text))
}
