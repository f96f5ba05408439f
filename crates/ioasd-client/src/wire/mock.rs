//! The test command of iommufd, by which an agent with mock hardware is driven.
//!
//! One struct carries every operation; an operation's fields overlap those of others and are told by their offset.
//!
//! What a program names by address is sent beside the struct: the memory behind an address as [`Extent`]s, the bytes of
//! ACCESS_RW and of the bitmap of DIRTY as payload, the latter as with HWPT_GET_DIRTY_BITMAP. An access, which a program names by its descriptor, is named by its object id; 0 if the
//! descriptor is no access.
//!
//! Imports allowed: command, fields, records.

use super::command::{Command, commands};
use super::field::Field;
use super::record::Record;

/// Reserves addresses of an address space.
pub const OP_ADD_RESERVED: u32 = 1;
/// Makes a mock device and attaches it.
pub const OP_MOCK_DOMAIN: u32 = 2;
/// Compares what a domain maps with memory.
pub const OP_MD_CHECK_MAP: u32 = 3;
/// Compares how often memory is pinned.
pub const OP_MD_CHECK_REFS: u32 = 4;
/// Makes an access; it is the one descriptor of the reply.
pub const OP_CREATE_ACCESS: u32 = 5;
/// Lets go of one item of an access.
pub const OP_DESTROY_ACCESS_PAGES: u32 = 6;
/// Pins, as one item of an access.
pub const OP_ACCESS_PAGES: u32 = 7;
/// Moves bytes through an access.
pub const OP_ACCESS_RW: u32 = 8;
/// Bounds the arrays that movements use.
pub const OP_SET_TEMP_MEMORY_LIMIT: u32 = 9;
/// Attaches a mock device to something else.
pub const OP_MOCK_DOMAIN_REPLACE: u32 = 10;
/// Moves an access to another address space.
pub const OP_ACCESS_REPLACE_IOAS: u32 = 11;
/// As [`OP_MOCK_DOMAIN`], with flags.
pub const OP_MOCK_DOMAIN_FLAGS: u32 = 12;

/// Compares a word of a nested HWPT's cache.
pub const OP_MD_CHECK_IOTLB: u32 = 14;
/// Lets a device report a fault.
pub const OP_TRIGGER_IOPF: u32 = 15;
/// Lets a device report an event to its vIOMMU.
pub const OP_TRIGGER_VEVENT: u32 = 17;
/// Compares a word of a device's cache.
pub const OP_DEV_CHECK_CACHE: u32 = 16;
/// Attaches a PASID.
pub const OP_PASID_ATTACH: u32 = 18;
/// Attaches a PASID to something else.
pub const OP_PASID_REPLACE: u32 = 19;
/// Detaches a PASID.
pub const OP_PASID_DETACH: u32 = 20;
/// Compares what a PASID is attached to.
pub const OP_PASID_CHECK_HWPT: u32 = 21;

/// Asks which memory of its own ACCESS_RW would move bytes to or from: the fields are those of ACCESS_RW, the payload of the
/// reply [`MemoryPlace`]s. No program can ask for this, only a front end, which then moves the bytes itself.
pub const OP_ACCESS_PLACES: u32 = 1 << 16 | OP_ACCESS_RW;
/// The last operation that a program knows.
pub const OP_LAST: u32 = 23;

/// Makes memory of a mock device; it is the one descriptor of the reply, and its number in the program what the ioctl returns.
pub const OP_DMABUF_GET: u32 = 22;
/// Takes such memory back, or gives it again; it is the one descriptor of the message.
pub const OP_DMABUF_REVOKE: u32 = 23;

/// MOCK_DOMAIN_FLAGS: the device cannot track what it has written.
pub const DEVICE_NO_DIRTY: u32 = 1;
/// MOCK_DOMAIN_FLAGS: the device has PASIDs.
pub const DEVICE_PASIDS: u32 = 4;
/// How many PASIDs such a device has.
pub const PASIDS: u32 = 1 << 20;

/// VIOMMU_ALLOC: a vIOMMU of mock devices.
pub const VIOMMU_MOCK: u32 = 0xdead_beef;
/// HW_QUEUE_ALLOC: a queue of mock hardware.
pub const HW_QUEUE_MOCK: u32 = 0xdead_beef;
/// VEVENTQ_ALLOC: events that name a device by the guest's number, four bytes.
pub const VEVENTQ_MOCK: u32 = 0xbeef_beef;
/// HWPT_INVALIDATE: the entries are [`MockInvalidation`]s, of a vIOMMU [`MockDeviceInvalidation`]s.
pub const INVALIDATE_MOCK: u32 = 0xdead_beef;
/// In such an entry: all words, not one.
pub const INVALIDATE_ALL: u32 = 1;
/// Marks what a device would have written to.
pub const OP_DIRTY: u32 = 13;

/// GET_HW_INFO: what the data of a mock device are.
pub const HW_INFO_MOCK: u32 = 0xfeed_beef;
/// GET_HW_INFO: a mock device's register.
pub const MOCK_REGISTER: u32 = 0xdead_beef;
/// DIRTY: pages that one call can be about at most.
pub const DIRTY_PAGES_MAX: u64 = 1 << 27;
/// HWPT_ALLOC: the data choose the table of a mock device.
pub const HWPT_DATA_MOCK: u32 = 0xdead;
/// CREATE_ACCESS: the access may pin.
pub const ACCESS_NEEDS_PIN: u32 = 1;
/// ACCESS_PAGES, ACCESS_RW: towards the memory.
pub const ACCESS_WRITE: u32 = 1;
/// ACCESS_PAGES, ACCESS_RW, IOAS_COPY: the address is the number of an area, in the lower half, and an offset in it.
pub const BY_AREA: u32 = 0x1_0000;
/// ACCESS_PLACES: a reply has at most so many.
pub const PLACES_MAX: usize = 64;
/// ACCESS_RW: through pinned pages, although the memory may be the sender's own.
pub const ACCESS_SLOW: u32 = 4;
/// Bytes that ACCESS_PAGES and ACCESS_RW take at most.
pub const ACCESS_MAX: u64 = 16 << 20;
/// What the name of an access's descriptor begins with; its object id follows, in four bytes, big-endian.
pub const ACCESS_NAME: &[u8] = b"ioasd/access/";

commands! {
    /// IOMMU_TEST_CMD.
    TestCmd = 0x3ba0 "TEST_CMD", min 68, size 72 {
        /// `OP_*`.
        op: u32 = 4,
        /// The object, if the operation has one.
        id: u32 = 8,
        /// Not looked at.
        reserved: u32 = 12,
        /// Bytes 16 to 23.
        at_16: u64 = 16,
        /// Bytes 24 to 31.
        at_24: u64 = 24,
        /// Bytes 32 to 39.
        at_32: u64 = 32,
        /// Bytes 40 to 47.
        at_40: u64 = 40,
        /// Bytes 48 to 55.
        at_48: u64 = 48,
        /// Bytes 56 to 63.
        at_56: u64 = 56,
        /// Not looked at.
        last: u32 = 64,
        /// Not looked at.
        padding: u32 = 68,
    }
}

impl TestCmd {
    /// The field at `offset`.
    #[must_use]
    pub fn field<F: Field>(&self, offset: usize) -> F {
        let mut bytes = [0; Self::SIZE];
        self.store(&mut bytes);
        F::load(&bytes, offset)
    }

    /// The same with another value in the field at `offset`.
    #[must_use]
    pub fn with<F: Field>(&self, offset: usize, value: F) -> Self {
        let mut bytes = [0; Self::SIZE];
        self.store(&mut bytes);
        value.store(&mut bytes, offset);
        Self::load(&bytes)
    }
}

/// Pages of memory one behind the other, and the pages of a file that are there; if it is private, those of the address
/// space.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    /// The device of the file's file system.
    pub device: u64,
    /// The file's inode; 0 if there is no file.
    pub inode: u64,
    /// The first page of the file; of the address space if there is no file.
    pub page: u64,
    /// How many.
    pub pages: u64,
}

impl Record for Extent {
    const BYTES: usize = 32;

    #[inline]
    fn load(bytes: &[u8]) -> Self {
        Self {
            device: Field::load(bytes, 0),
            inode: Field::load(bytes, 8),
            page: Field::load(bytes, 16),
            pages: Field::load(bytes, 24),
        }
    }

    #[inline]
    fn store(self, bytes: &mut [u8]) {
        self.device.store(bytes, 0);
        self.inode.store(bytes, 8);
        self.page.store(bytes, 16);
        self.pages.store(bytes, 24);
    }
}

/// Memory of the sender.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MemoryPlace {
    /// Where it begins.
    pub address: u64,
    /// Its bytes.
    pub length: u64,
}

impl Record for MemoryPlace {
    const BYTES: usize = 16;

    #[inline]
    fn load(bytes: &[u8]) -> Self {
        Self { address: Field::load(bytes, 0), length: Field::load(bytes, 8) }
    }

    #[inline]
    fn store(self, bytes: &mut [u8]) {
        self.address.store(bytes, 0);
        self.length.store(bytes, 8);
    }
}

/// Data of HWPT_ALLOC with type [`HWPT_DATA_MOCK`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MockTableChoice {
    /// What nested domains begin with.
    pub iotlb: u32,
    /// Which table.
    pub table: u32,
}

impl Record for MockTableChoice {
    const BYTES: usize = 8;

    fn load(bytes: &[u8]) -> Self {
        Self { iotlb: Field::load(bytes, 0), table: Field::load(bytes, 4) }
    }

    fn store(self, bytes: &mut [u8]) {
        self.iotlb.store(bytes, 0);
        self.table.store(bytes, 4);
    }
}

/// One entry of HWPT_INVALIDATE on a nested HWPT of a mock device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MockInvalidation {
    /// [`INVALIDATE_ALL`].
    pub flags: u32,
    /// Which word, if not all.
    pub word: u32,
}

impl Record for MockInvalidation {
    const BYTES: usize = 8;

    fn load(bytes: &[u8]) -> Self {
        Self { flags: Field::load(bytes, 0), word: Field::load(bytes, 4) }
    }

    fn store(self, bytes: &mut [u8]) {
        self.flags.store(bytes, 0);
        self.word.store(bytes, 4);
    }
}

/// One entry of HWPT_INVALIDATE on a vIOMMU of mock devices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MockDeviceInvalidation {
    /// [`INVALIDATE_ALL`].
    pub flags: u32,
    /// The guest's number of the device.
    pub virt_id: u32,
    /// Which word of its cache, if not all.
    pub word: u32,
}

impl Record for MockDeviceInvalidation {
    const BYTES: usize = 12;

    fn load(bytes: &[u8]) -> Self {
        Self { flags: Field::load(bytes, 0), virt_id: Field::load(bytes, 4), word: Field::load(bytes, 8) }
    }

    fn store(self, bytes: &mut [u8]) {
        self.flags.store(bytes, 0);
        self.virt_id.store(bytes, 4);
        self.word.store(bytes, 8);
    }
}

/// Data of VIOMMU_ALLOC with type [`VIOMMU_MOCK`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MockViommu {
    /// In: a word.
    pub given: u32,
    /// Out: the same word.
    pub out_given: u32,
    /// Out: where in the device the pages of the vIOMMU can be mapped.
    pub out_offset: u64,
    /// Out: their bytes.
    pub out_length: u64,
}

impl Record for MockViommu {
    const BYTES: usize = 24;

    fn load(bytes: &[u8]) -> Self {
        Self {
            given: Field::load(bytes, 0),
            out_given: Field::load(bytes, 4),
            out_offset: Field::load(bytes, 8),
            out_length: Field::load(bytes, 16),
        }
    }

    fn store(self, bytes: &mut [u8]) {
        self.given.store(bytes, 0);
        self.out_given.store(bytes, 4);
        self.out_offset.store(bytes, 8);
        self.out_length.store(bytes, 16);
    }
}

/// Data of GET_HW_INFO with type [`HW_INFO_MOCK`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct MockInfo {
    /// 0.
    pub flags: u32,
    /// [`MOCK_REGISTER`].
    pub register: u32,
}

impl Record for MockInfo {
    const BYTES: usize = 8;

    fn load(bytes: &[u8]) -> Self {
        Self { flags: Field::load(bytes, 0), register: Field::load(bytes, 4) }
    }

    fn store(self, bytes: &mut [u8]) {
        self.flags.store(bytes, 0);
        self.register.store(bytes, 4);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_offset() {
        let command = TestCmd { at_16: 0x2222_2222_1111_1111, ..TestCmd::default() };
        assert_eq!((command.field::<u32>(16), command.field::<u32>(20)), (0x1111_1111, 0x2222_2222));
        let changed = command.with(20, 7_u32).with(24, u64::MAX);
        assert_eq!((changed.at_16, changed.at_24, changed.at_32), (0x7_1111_1111, u64::MAX, 0));
    }

    #[test]
    fn an_extent_comes_back_the_same() {
        let extent = Extent { device: 1, inode: 2, page: 3, pages: u64::MAX };
        let mut bytes = [0; Extent::BYTES];
        extent.store(&mut bytes);
        assert_eq!(Extent::load(&bytes), extent);
    }
}
