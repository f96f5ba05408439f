//! IOAS_MAP_FILES, IOAS_UNMAP_RANGES: many ranges in one message.
//!
//! What is wrong with the message refuses all of it, before anything is done: EFAULT, EINVAL, ENOENT, ENOMEM, EOPNOTSUPP.
//! What is wrong with a range is told in its record alone, by the errno that the single command would give. If the records
//! cannot be written back, the reply is EFAULT and what was done stays, as with the single commands.
//!
//! Imports allowed: actors, storage's request checks, the client crate's wire.

use ioasd_client::units::{ByteLen, Flag};
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::{ARRAY_IN_MEMFD, IoasMapFiles, IoasUnmapRanges};
use ioasd_client::wire::record::{MapRange, UnmapRange};

use super::array::Array;
use super::ioas::{MAP_FLAGS, permission, placement};
use super::{Call, Done, Serve, check_flags, check_reserved};
use crate::actors::client_context::address_spaces::{FileSlice, Mapping};
use crate::error::{Coded, Errno};
use crate::storage::io_pagetable::{UnmapRequest, check_file_range, check_map_request, check_unmap_request};
use crate::storage::refusal::Refusal;
use crate::sys::client_fd::ClientFd;

impl Serve for IoasMapFiles {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, ARRAY_IN_MEMFD)?;
        check_reserved(Self::NAME, self.reserved)?;
        call.client.require_ioas(self.ioas_id.into())?;
        let (files, array) = split(self.flags, call.fds)?;
        let array = Array::of(Self::NAME, call.payload, array, self.ranges)?;
        let mut records: Vec<MapRange> = array.read(self.num_ranges)?;
        let ranges = records.iter().map(|record| file_range(record, &files)).collect();
        let outcomes = call.client.map_files(self.ioas_id.into(), ranges, call.sender).await?;
        let mut out_done = 0;
        for (record, outcome) in records.iter_mut().zip(outcomes) {
            record.errno = errno_of(&outcome);
            if let Ok(iova) = outcome {
                record.iova = iova;
                out_done += 1;
            }
        }
        let payload = array.give_back(&records)?;
        Ok(Done::value(Self { out_done, ..self }).with_payload(payload))
    }
}

impl Serve for IoasUnmapRanges {
    async fn serve(self, call: Call<'_>) -> Result<Done<Self>, Refusal> {
        check_flags(Self::NAME, self.flags, ARRAY_IN_MEMFD)?;
        check_reserved(Self::NAME, self.reserved)?;
        call.client.require_ioas(self.ioas_id.into())?;
        let (files, array) = split(self.flags, call.fds)?;
        super::check_no_fds(Self::NAME, &files)?;
        let array = Array::of(Self::NAME, call.payload, array, self.ranges)?;
        let mut records: Vec<UnmapRange> = array.read(self.num_ranges)?;
        let requests: Vec<Result<UnmapRequest, Refusal>> = records.iter().map(unmap_request).collect();
        let good = requests.iter().filter_map(|request| request.as_ref().ok().copied()).collect();
        let mut unmapped = call.client.unmap_ranges(self.ioas_id.into(), good).await?.into_iter();
        let mut out_done = 0;
        for (record, request) in records.iter_mut().zip(requests) {
            let outcome: Result<ByteLen, Refusal> =
                request.and_then(|_| unmapped.next().unwrap_or_else(|| Ok(ByteLen::new(0))));
            record.errno = errno_of(&outcome);
            if let Ok(length) = outcome {
                record.length = length;
                out_done += 1;
            }
        }
        let payload = array.give_back(&records)?;
        Ok(Done::value(Self { out_done, ..self }).with_payload(payload))
    }
}

/// The files of a message, and the memfd of its array, if there is one.
fn split(flags: u32, fds: Vec<ClientFd>) -> Result<(Vec<ClientFd>, Vec<ClientFd>), Refusal> {
    let mut files = fds;
    if Flag::of(flags, ARRAY_IN_MEMFD) == Flag::Clear {
        return Ok((files, Vec::new()));
    }
    match files.pop() {
        Some(array) => Ok((files, vec![array])),
        None => Err(Refusal::new(
            Errno::INVAL,
            "array-missing",
            "the array is said to lie in a memfd, which must be the last descriptor of the message; there is none",
        )),
    }
}

fn file_range(record: &MapRange, files: &[ClientFd]) -> Result<(FileSlice, Mapping), Refusal> {
    let MapRange { flags, fd, start, length, iova, reserved, .. } = *record;
    check_flags(IoasMapFiles::NAME, flags, MAP_FLAGS)?;
    check_reserved(IoasMapFiles::NAME, reserved)?;
    let permission =
        check_map_request(iova, length, permission(flags)).map_err(|error| Refusal::of(&error))?;
    check_file_range(start, length).map_err(|error| Refusal::of(&error))?;
    let file = usize::try_from(fd).ok().and_then(|fd| files.get(fd)).cloned().ok_or_else(|| {
        let text = format!("a range names descriptor {fd}, the message has {}", files.len());
        Refusal::new(Errno::BADF, "file-missing", text)
    })?;
    Ok((FileSlice { file, start, length }, Mapping { permission, placement: placement(flags, iova) }))
}

fn unmap_request(record: &UnmapRange) -> Result<UnmapRequest, Refusal> {
    let UnmapRange { iova, length, reserved, .. }: UnmapRange = *record;
    check_reserved(IoasUnmapRanges::NAME, reserved)?;
    check_unmap_request(iova, length).map_err(|error| Refusal::of(&error))
}

fn errno_of<T>(outcome: &Result<T, Refusal>) -> u32 {
    outcome.as_ref().err().map_or(0, |refusal| refusal.errno().raw_os_error().unsigned_abs())
}
