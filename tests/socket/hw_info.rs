//! GET_HW_INFO: what tables of a software device can be.

use std::os::fd::AsFd;

use ioasd_client::calls::Iommu;
use ioasd_client::formats::FormatId;
use ioasd_client::ids::DeviceId;
use ioasd_client::units::ByteLen;
use ioasd_client::wire::command::Command;
use ioasd_client::wire::own::HW_INFO_SOFTWARE;
use ioasd_client::wire::record::{Record, TableAbilities, TableChoice};
use ioasd_client::wire::uapi::{GetHwInfo, HW_CAP_DIRTY_TRACKING, HW_INFO_TYPE_VALID};
use rustix::io::Errno;

use crate::fixture::Agent;
use crate::memory::{empty_memfd, read_at};
use crate::raw::call_with;

#[test]
fn it_tells_what_hwpt_alloc_may_choose_from() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let ioas = client.ioas_alloc().unwrap();
    for format in FormatId::ALL {
        let device = client.device_create(format, Iommu::Own).unwrap();
        let ask = GetHwInfo { dev_id: device, data_len: 40, ..GetHwInfo::default() };
        let answer = call_with(&mut client, &ask, &[], &[]);
        let told = GetHwInfo::load(&answer.body);
        assert_eq!(
            (told.data_len, told.data_type, told.out_capabilities),
            (32, HW_INFO_SOFTWARE, HW_CAP_DIRTY_TRACKING)
        );
        assert_eq!((answer.payload.len(), &answer.payload[32..]), (40, &[0; 8][..]), "zero behind the data");
        let can = TableAbilities::load(&answer.payload);
        assert_eq!(can.format, format.number());
        let all = TableChoice {
            start: can.start,
            last: can.last,
            page_sizes: can.page_sizes,
            ..TableChoice::default()
        };
        client.hwpt_alloc(device, ioas, Some(all)).unwrap();
    }
}

#[test]
fn sizes_types_and_errors_are_those_of_the_kernel() {
    let agent = Agent::start();
    let mut client = agent.connect();
    let device = client.device_create(FormatId::AmdV1, Iommu::Shared).unwrap();
    let ask = GetHwInfo { dev_id: device, data_len: 12, ..GetHwInfo::default() };
    let whole = call_with(&mut client, &GetHwInfo { data_len: 32, ..ask }, &[], &[]).payload;
    let cut = call_with(&mut client, &ask, &[], &[]);
    assert_eq!((cut.errno, &cut.payload[..]), (0, &whole[..12]), "as much as there is room for");
    let size = call_with(&mut client, &GetHwInfo { data_len: 0, ..ask }, &[], &[]);
    assert_eq!((size.payload.len(), GetHwInfo::load(&size.body).data_len), (0, 32));
    let file = empty_memfd("info", 1);
    let into = |at| GetHwInfo { data_uptr: ByteLen::new(at), ..ask };
    assert_eq!(call_with(&mut client, &into(64), &[], &[file.as_fd()]).refusal(), None);
    assert_eq!(read_at(&file, 64, 12), whole[..12]);
    assert_eq!(call_with(&mut client, &into(0xff8), &[], &[file.as_fd()]).refusal(), Some(Errno::FAULT));
    let typed = |data_type| GetHwInfo { flags: HW_INFO_TYPE_VALID, data_type, ..ask };
    let nobody = DeviceId::new(77);
    let cases = [
        (GetHwInfo { flags: 2, dev_id: nobody, ..ask }, Some(Errno::OPNOTSUPP)),
        (GetHwInfo { reserved: 1, dev_id: nobody, ..ask }, Some(Errno::OPNOTSUPP)),
        (GetHwInfo { reserved2: 1, dev_id: nobody, ..ask }, Some(Errno::OPNOTSUPP)),
        (GetHwInfo { dev_id: nobody, ..typed(1) }, Some(Errno::NOENT)),
        (typed(1), Some(Errno::OPNOTSUPP)),
        (typed(0), None),
        (typed(HW_INFO_SOFTWARE), None),
        (GetHwInfo { data_type: 1, ..ask }, None),
        (GetHwInfo { data_len: u32::MAX, ..ask }, Some(Errno::NOMEM)),
    ];
    for (command, errno) in cases {
        assert_eq!(call_with(&mut client, &command, &[], &[]).refusal(), errno, "{command:?}");
    }
}
