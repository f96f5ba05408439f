//! The worked examples of the specifications, entry by entry, put into memory and walked by the second walker.
//!
//! What the production decoders make of the same entries is tested beside them.

use std::collections::HashMap;

use crate::second_walker::{Amd, End, amd, arm, riscv, vtd};

/// Tables in the order of the walk: where each lies, the index, the entry.
type Steps<'a> = &'a [(u64, u64, u64)];

fn memory(steps: Steps<'_>) -> impl Fn(u64) -> u64 {
    let words: HashMap<u64, u64> =
        steps.iter().map(|(table, index, entry)| (table + 8 * index, *entry)).collect();
    move |address| words.get(&address).copied().unwrap_or(0)
}

const fn leaf(phys: u64, size_lg2: u32, rights: &str) -> End {
    let rights = rights.as_bytes();
    End::Memory { phys, size: 1 << size_lg2, read: rights[0] == b'r', write: rights[1] == b'w' }
}

fn check_amd(mode: u32, granule: u32, iova: u64, steps: Steps<'_>, expected: End) {
    assert_eq!(amd(&memory(steps), steps[0].0, Amd { granule, mode }, iova), expected, "{iova:#x}");
}

#[test]
fn amd_v1() {
    const T: u64 = 0x1_0000_0000;
    let a1 = [
        (T, 0x24, 0x6000_0001_0000_1601),
        (T + 0x1000, 0xd1, 0x6000_0001_0000_2401),
        (T + 0x2000, 0xb3, 0x6000_0001_0000_3201),
        (T + 0x3000, 0x189, 0x7000_00ab_cdef_0001),
    ];
    check_amd(4, 12, 0x1234_5678_9000, &a1, leaf(0xab_cdef_0000, 12, "rw"));
    let a2 = |copy: u64| {
        [
            (T, 0, 0x6000_0001_0000_1401),
            (T + 0x1000, 0, 0x6000_0001_0000_2201),
            (T + 0x2000, 16 + copy, 0x2000_0000_8765_7e01),
        ]
    };
    check_amd(3, 12, 0x1_0000, &a2(0), leaf(0x8765_0000, 16, "r-"));
    check_amd(3, 12, 0x1_f123, &a2(15), leaf(0x8765_f123, 16, "r-"));
    let a3 = [(T, 1, 0x6000_0001_0000_1401), (T + 0x1000, 1, 0x6000_0001_2340_0001)];
    check_amd(3, 12, 0x4020_0000, &a3, leaf(0x1_2340_0000, 21, "rw"));
    let a4 = [(T, 1, 0x6000_0001_0000_1401), (T + 0x1000, 3, 0x5000_0000_7fdf_fe01)];
    check_amd(3, 12, 0x4060_0000, &a4, leaf(0x7fe0_0000, 22, "-w"));
    let a5 = [(T, 1, 0x6000_0001_0000_1601), (T + 0x1000, 4, 0x6000_0045_7fff_fe01)];
    check_amd(4, 12, 0x81_0000_0000, &a5, leaf(0x45_0000_0000, 32, "rw"));
    check_amd(1, 12, 0x2000, &[(T, 2, 0x6000_5000_0000_6e41)], leaf(0x5000_0000_6000, 13, "rw"));
    check_amd(4, 12, 0x200_0000_0000, &[(T, 4, 0x6000_037f_ffff_fe01)], leaf(0x300_0000_0000, 40, "rw"));
    let a8 = [
        (T, 0x7f, 0x6000_0001_0000_1a01),
        (T + 0x1000, 0x1ff, 0x6000_0001_0000_2801),
        (T + 0x2000, 0x1ff, 0x6000_0001_0000_3601),
        (T + 0x3000, 0x1ff, 0x6000_0001_0000_4401),
        (T + 0x4000, 0x1ff, 0x6000_0001_0000_5201),
        (T + 0x5000, 0x1ff, 0x300f_ffff_ffff_f001),
    ];
    check_amd(6, 12, 0xffff_ffff_ffff_f000, &a8, leaf(0xf_ffff_ffff_f000, 12, "r-"));
}

#[test]
fn amd_v1_with_a_2_kib_granule() {
    const T: u64 = 0x4_0000_0000;
    let below = |l1_index, steps: &[(u64, u64, u64)]| {
        let mut all = vec![(T, 0, 0x6000_0008_0000_2401)];
        if let [(table, ..)] = steps
            && *table == T + 0x2000
        {
            all.push((T + 0x1000, l1_index, 0x6000_0008_0000_4201));
        }
        all.extend_from_slice(steps);
        all
    };
    let m1 = below(16, &[(T + 0x2000, 1, 0x6000_0000_2468_b001)]);
    check_amd(3, 11, 0x100_0800, &m1, leaf(0x1234_5800, 11, "rw"));
    let m2 = below(16, &[(T + 0x2000, 3, 0x6000_0000_2468_ce01)]);
    check_amd(3, 11, 0x100_1800, &m2, leaf(0x1234_6800, 12, "rw"));
    let m3 = below(17, &[(T + 0x1000, 0x11, 0x2000_0000_4020_0001)]);
    check_amd(3, 11, 0x110_0000, &m3, leaf(0x2010_0000, 20, "r-"));
    let m4 = below(18, &[(T + 0x1000, 0x12, 0x6000_0000_405f_fe01)]);
    check_amd(3, 11, 0x120_0000, &m4, leaf(0x2020_0000, 21, "rw"));
    let m5 = below(16, &[(T + 0x2000, 63, 0x6000_0000_246a_fe41)]);
    check_amd(3, 11, 0x101_f800, &m5, leaf(0x1235_f800, 16, "rw"));
    check_amd(3, 11, 0x10_0000_0000, &[(T, 128, 0x6000_004f_ffff_fe01)], leaf(0x20_0000_0000, 36, "rw"));
}

#[test]
fn vtd_second_stage() {
    const T: u64 = 0x2_0000_0000;
    let check = |levels, iova, steps: Steps<'_>, expected| {
        assert_eq!(vtd(&memory(steps), T, levels, iova), expected, "{iova:#x}");
    };
    let v1 = [
        (T, 0x24, 0x2_0000_1003),
        (T + 0x1000, 0xd1, 0x2_0000_2003),
        (T + 0x2000, 0xb3, 0x2_0000_3003),
        (T + 0x3000, 0x189, 0xab_cdef_0803),
    ];
    check(4, 0x1234_5678_9000, &v1, leaf(0xab_cdef_0000, 12, "rw"));
    let v2 = [(T, 0xff, 0x2_0000_1003), (T + 0x1000, 0x1ff, 0x2_0000_2003), (T + 0x2000, 0x1ff, 0x8020_0081)];
    check(4, 0x7fff_ffe0_0000, &v2, leaf(0x8020_0000, 21, "r-"));
    check(3, 0x4000_0000, &[(T, 1, 0x10_8000_0882)], leaf(0x10_8000_0000, 30, "-w"));
    let v4 = [
        (T, 0x1ff, 0x2_0000_1003),
        (T + 0x1000, 0, 0x2_0000_2003),
        (T + 0x2000, 0, 0x2_0000_3003),
        (T + 0x3000, 0, 0x2_0000_4003),
        (T + 0x4000, 1, 0x345_6003),
    ];
    check(5, 0x1ff_0000_0000_1000, &v4, leaf(0x345_6000, 12, "rw"));
    let v5 = [(T, 0, 0x2_0000_1103), (T + 0x1000, 1, 0x2_0000_2103), (T + 0x2000, 1, 0x777_7b03)];
    check(3, 0x20_1000, &v5, leaf(0x777_7000, 12, "rw"));
}

/// S3 has another root than ioasd writes; its entry is tested beside the decoder. S5 and S6 have granules it does not write.
#[test]
fn arm_stage_2() {
    const T: u64 = 0x3_0010_0000;
    const NEXT: [u64; 3] = [0x3_0020_0000, 0x3_0021_0000, 0x3_0022_0000];
    let check =
        |iova, steps: Steps<'_>, expected| assert_eq!(arm(&memory(steps), T, iova), expected, "{iova:#x}");
    let s1 = [
        (T, 0x24, 0x3_0020_0003),
        (NEXT[0], 0xd1, 0x3_0021_0003),
        (NEXT[1], 0xb3, 0x3_0022_0003),
        (NEXT[2], 0x189, 0xab_cdef_07ff),
    ];
    check(0x1234_5678_9000, &s1, leaf(0xab_cdef_0000, 12, "rw"));
    let s2 = [(T, 0, 0x3_0020_0003), (NEXT[0], 1, 0x3_0021_0003), (NEXT[1], 1, 0x0060_0000_8040_077d)];
    check(0x4020_0000, &s2, leaf(0x8040_0000, 21, "r-"));
    let upper = [(T, 0, 0x3_0020_0003), (NEXT[0], 0, 0x3_0021_0003), (NEXT[1], 0, 0x3_0022_0003)];
    for (index, entry) in
        [(16, 0x0010_0000_8765_07ff), (17, 0x0010_0000_8765_17ff), (31, 0x0010_0000_8765_f7ff)]
    {
        let s4 = [&upper[..], &[(NEXT[2], index, entry)]].concat();
        check(index << 12, &s4, leaf(0x8765_0000 + ((index - 16) << 12), 16, "rw"));
    }
}

/// R5 has a wider root than ioasd writes; its entry is tested beside the decoder.
#[test]
fn risc_v() {
    const T: u64 = 0x8_0000_0000;
    const NEXT: [u64; 2] = [0x8_0001_0000, 0x8_0001_1000];
    let check = |levels, iova, steps: Steps<'_>, expected| {
        assert_eq!(riscv(&memory(steps), T, levels, iova), expected, "{iova:#x}");
    };
    let r1 = [(T, 0xd1, 0x2_0000_4001), (NEXT[0], 0xb3, 0x2_0000_4401), (NEXT[1], 0x189, 0x2a_f37b_c0df)];
    check(3, 0x34_5678_9000, &r1, leaf(0xab_cdef_0000, 12, "rw"));
    let r2 = [(T, 0, 0x2_0000_4001), (NEXT[0], 0, 0x2_0000_4401), (NEXT[1], 31, 0x8000_0000_21d9_60d7)];
    check(3, 0x1_f000, &r2, leaf(0x8765_f000, 16, "rw"));
    let r3 = [(T, 0xff, 0x2_0000_4001), (NEXT[0], 0x1ff, 0x2_0000_4401), (NEXT[1], 0x1ff, 0x2008_0053)];
    check(4, 0x7fff_ffe0_0000, &r3, leaf(0x8020_0000, 21, "r-"));
    let r4 = [(T, 0, 0x2_0000_4001), (NEXT[0], 0, 0x2_0000_4401), (NEXT[1], 1, 0x4000_0004_2000_00d7)];
    check(5, 0x4000_0000, &r4, leaf(0x10_8000_0000, 30, "rw"));
    let r6 = [(T, 0x100, 0x2_0000_4001), (NEXT[0], 0, 0x2_0000_4401), (NEXT[1], 1, 0x48d_145b)];
    check(3, 0xffff_ffc0_0000_1000, &r6, leaf(0x1234_5000, 12, "r-"));
    check(4, 0x80_0000_0000, &[(T, 1, 0x40_0000_00d7)], leaf(0x100_0000_0000, 39, "rw"));
}
