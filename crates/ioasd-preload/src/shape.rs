//! What each command's struct is like, as far as a front end must know it: its sizes, what it points to, which
//! descriptor it names, which object it makes.
//!
//! Imports allowed: the client crate's wire.

use ioasd_client::wire::command::Command;
use ioasd_client::wire::mock::TestCmd;
use ioasd_client::wire::record::{IovaBounds, Record};
use ioasd_client::wire::uapi::{
    Destroy, FaultQueueAlloc, GetHwInfo, HwQueueAlloc, HwptAlloc, HwptGetDirtyBitmap, HwptInvalidate,
    HwptSetDirtyTracking, IoasAlloc, IoasAllowIovas, IoasChangeProcess, IoasCopy, IoasIovaRanges, IoasMap,
    IoasMapFile, IoasNoiommuGetPa, IoasUnmap, IommuOption, VdeviceAlloc, VeventqAlloc, ViommuAlloc,
};
use ioasd_client::wire::vfio::VfioIoas;

/// A command's struct.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Number of the command.
    pub(crate) command: u32,
    /// The least size it may have.
    pub(crate) min: usize,
    /// Its size.
    pub(crate) size: usize,
    /// What it has beside itself.
    pub(crate) beside: Beside,
    /// Where the id of the object that it makes comes back.
    pub(crate) makes: Option<usize>,
    /// Where the number of the descriptor that it makes comes back.
    pub(crate) opens: Option<usize>,
}

/// What a struct has beside itself; fields are given by their offset.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Beside {
    /// Nothing.
    Nothing,
    /// A pointer to an array that the agent reads.
    Reads(Array),
    /// A pointer to an array that the agent fills.
    Fills(Array),
    /// A pointer to bytes that the agent reads and changes: few, or it refuses them.
    Changes(Array),
    /// Memory of the program: an address and, behind it, a length.
    Memory {
        /// Where the address is.
        start: usize,
    },
    /// A descriptor.
    File {
        /// Where its number is.
        fd: usize,
    },
}

/// A pointer to an array, and how long that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Array {
    /// Where the pointer is.
    pub(crate) pointer: usize,
    /// Where the number of elements is, a u32.
    pub(crate) count: usize,
    /// Bytes of an element.
    pub(crate) element: usize,
}

/// The array of both commands about addresses.
const BOUNDS: Array = Array { pointer: 16, count: 8, element: IovaBounds::BYTES };

const ALL: [Shape; 23] = [
    Shape::of::<Destroy>(Beside::Nothing),
    Shape::of::<IoasAlloc>(Beside::Nothing).making(8),
    Shape::of::<IoasAllowIovas>(Beside::Reads(BOUNDS)),
    Shape::of::<IoasCopy>(Beside::Nothing),
    Shape::of::<IoasIovaRanges>(Beside::Fills(BOUNDS)),
    Shape::of::<IoasMap>(Beside::Memory { start: 16 }),
    Shape::of::<IommuOption>(Beside::Nothing),
    Shape::of::<IoasChangeProcess>(Beside::Nothing),
    Shape::of::<GetHwInfo>(Beside::Fills(Array { pointer: 16, count: 12, element: 1 })),
    Shape::of::<VfioIoas>(Beside::Nothing),
    Shape::of::<HwptAlloc>(Beside::Reads(Array { pointer: 32, count: 28, element: 1 })).making(16),
    Shape::of::<HwptSetDirtyTracking>(Beside::Nothing),
    Shape::of::<HwptGetDirtyBitmap>(Beside::Nothing),
    Shape::of::<HwptInvalidate>(Beside::Nothing),
    Shape::of::<ViommuAlloc>(Beside::Changes(Array { pointer: 32, count: 24, element: 1 })).making(20),
    Shape::of::<VdeviceAlloc>(Beside::Nothing).making(12),
    Shape::of::<HwQueueAlloc>(Beside::Nothing).making(20),
    Shape::of::<FaultQueueAlloc>(Beside::Nothing).making(8).opening(12),
    Shape::of::<VeventqAlloc>(Beside::Nothing).making(20).opening(24),
    Shape::of::<TestCmd>(Beside::Nothing),
    Shape::of::<IoasMapFile>(Beside::File { fd: 12 }),
    Shape::of::<IoasUnmap>(Beside::Nothing),
    Shape::of::<IoasNoiommuGetPa>(Beside::Nothing),
];

impl Shape {
    const fn of<C: Command>(beside: Beside) -> Self {
        Self { command: C::NUMBER, min: C::MIN, size: C::SIZE, beside, makes: None, opens: None }
    }

    const fn making(self, id: usize) -> Self {
        Self { makes: Some(id), ..self }
    }

    const fn opening(self, fd: usize) -> Self {
        Self { opens: Some(fd), ..self }
    }
}

/// The struct of a command.
pub(crate) fn of(command: u32) -> Option<&'static Shape> {
    ALL.iter().find(|shape| shape.command == command)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::STRUCT_MAX;

    /// Where a field is, by its name.
    fn place<C: Command>(name: &str) -> usize {
        C::FIELDS.iter().find(|field| field.name == name).unwrap().offset
    }

    #[test]
    fn offsets_are_those_of_the_fields() {
        assert_eq!(of(IoasAlloc::NUMBER).unwrap().makes, Some(place::<IoasAlloc>("out_ioas_id")));
        for (pointer, count) in [
            (place::<IoasAllowIovas>("allowed_iovas"), place::<IoasAllowIovas>("num_iovas")),
            (place::<IoasIovaRanges>("allowed_iovas"), place::<IoasIovaRanges>("num_iovas")),
        ] {
            assert_eq!((pointer, count), (BOUNDS.pointer, BOUNDS.count));
        }
        let Beside::Memory { start } = of(IoasMap::NUMBER).unwrap().beside else { panic!("no memory") };
        assert_eq!((start, start + 8), (place::<IoasMap>("user_va"), place::<IoasMap>("length")));
        let hwpt = of(HwptAlloc::NUMBER).unwrap();
        let Beside::Reads(data) = hwpt.beside else { panic!("no data") };
        assert_eq!(
            (data.pointer, data.count),
            (place::<HwptAlloc>("data_uptr"), place::<HwptAlloc>("data_len"))
        );
        assert_eq!(hwpt.makes, Some(place::<HwptAlloc>("out_hwpt_id")));
        let viommu = of(ViommuAlloc::NUMBER).unwrap();
        assert_eq!(viommu.makes, Some(place::<ViommuAlloc>("out_viommu_id")));
        let Beside::Changes(data) = viommu.beside else { panic!("no data") };
        let (pointer, length) = (place::<ViommuAlloc>("data_uptr"), place::<ViommuAlloc>("data_len"));
        assert_eq!((data.pointer, data.count), (pointer, length));
        let vdevice = of(VdeviceAlloc::NUMBER).unwrap();
        assert_eq!(vdevice.makes, Some(place::<VdeviceAlloc>("out_vdevice_id")));
        let queue = of(HwQueueAlloc::NUMBER).unwrap();
        assert_eq!(queue.makes, Some(place::<HwQueueAlloc>("out_hw_queue_id")));
        let faults = of(FaultQueueAlloc::NUMBER).unwrap();
        assert_eq!(faults.makes, Some(place::<FaultQueueAlloc>("out_fault_id")));
        assert_eq!(faults.opens, Some(place::<FaultQueueAlloc>("out_fault_fd")));
        let events = of(VeventqAlloc::NUMBER).unwrap();
        assert_eq!(events.makes, Some(place::<VeventqAlloc>("out_veventq_id")));
        assert_eq!(events.opens, Some(place::<VeventqAlloc>("out_veventq_fd")));
        let Beside::File { fd } = of(IoasMapFile::NUMBER).unwrap().beside else { panic!("no file") };
        assert_eq!(fd, place::<IoasMapFile>("fd"));
    }

    #[test]
    fn every_struct_fits() {
        assert!(ALL.iter().all(|shape| shape.min <= shape.size && shape.size <= STRUCT_MAX));
        assert!(of(0).is_none());
    }
}
