//! IOAS_MAP.
//!
//! A front end that finds the memory to be shared, and one file, sends that file, and the offset of the first byte as
//! payload. Of other memory nothing is sent: the agent asks for it when it is pinned.
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

use ioasd_client::units::ByteLen;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::uapi::IoasMap;

use super::ioas::{MAP_FLAGS, permission, placement};
use super::{Call, Done, Serve, check_flags, check_reserved};
use crate::actors::client_context::address_spaces::Mapping;
use crate::actors::client_context::process_memory::MemorySlice;
use crate::error::Errno;
use crate::storage::io_pagetable::{check_map_request, check_user_memory};
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;

impl Serve for IoasMap {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, MAP_FLAGS)?;
        check_reserved(Self::NAME, self.reserved)?;
        let permission = check_map_request(self.iova, self.length, permission(self.flags));
        let permission = permission.map_err(|error| Refusal::of(&error))?;
        call.client.require_ioas(self.ioas_id.into())?;
        check_user_memory(self.user_va, self.length).map_err(|error| Refusal::of(&error))?;
        let file = file(call.payload, call.fds)?;
        let memory = MemorySlice { start: self.user_va, length: self.length, file };
        let mapping = Mapping { permission, placement: placement(self.flags, self.iova) };
        let iova = call.client.map_memory(self.ioas_id.into(), memory, mapping, call.sender).await?;
        Ok(Done::value(Self { iova, ..self }))
    }
}

pub(super) fn file(payload: &[u8], fds: Vec<ClientFd>) -> Result<Option<(ClientFd, ByteLen)>, Refusal> {
    let mut fds = fds.into_iter();
    match (fds.next(), fds.next(), payload.first_chunk()) {
        (None, ..) => Ok(None),
        (Some(file), None, Some(offset)) => Ok(Some((file, ByteLen::new(u64::from_le_bytes(*offset))))),
        _ => {
            let text = "IOAS_MAP takes one file at most, and with it an offset of 8 bytes";
            Err(Refusal::new(Errno::INVAL, "memory-file", text))
        }
    }
}
