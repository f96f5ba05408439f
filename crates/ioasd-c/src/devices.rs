//! Devices and the domains they use.
//!
//! Imports allowed: boundary, connection, constants; calls and ids of the client crate.
#![expect(unsafe_code, reason = "exported names")]

use std::ffi::c_int;
use std::mem::MaybeUninit;
use std::os::fd::IntoRawFd;

use ioasd_client::calls::Iommu;
use ioasd_client::ids::{DeviceId, HwptId, ObjectId};

use crate::boundary::wanted;
use crate::connection::{ConnectionHandle, call};
use crate::constants::{IOASD_DEVICE_OWN_IOMMU, format, only_flag};

/// Makes a software device, whose domains are tables of a format of enum ioasd_format. Its number is stored to `device`.
///
/// @param flags 0 or IOASD_DEVICE_OWN_IOMMU.
/// @return 0 or a negative errno.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_device_create(
    connection: *mut ConnectionHandle,
    format: u32,
    flags: u32,
    device: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    call(connection, |agent| {
        let device = wanted(device, "device")?;
        let iommu = only_flag(flags, IOASD_DEVICE_OWN_IOMMU, Iommu::Own, Iommu::Shared)?;
        device.write(agent.device_create(self::format(format)?, iommu)?.get());
        Ok(())
    })
}

/// Attaches a device to an address space or a HWPT. The number of the HWPT that serves it, which ioasd_domain_export()
/// takes, is stored to `hwpt`.
///
/// @return 0; -ENOMEM if a limit is in the way of what is mapped already.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_device_attach(
    connection: *mut ConnectionHandle,
    device: u32,
    target: u32,
    hwpt: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    call(connection, |agent| {
        let hwpt = wanted(hwpt, "hwpt")?;
        hwpt.write(agent.device_attach(DeviceId::new(device), ObjectId::new(target))?.get());
        Ok(())
    })
}

/// Attaches a device, which is attached already, to another address space or HWPT.
///
/// @return as ioasd_device_attach(); the device stays where it is then.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_device_replace(
    connection: *mut ConnectionHandle,
    device: u32,
    target: u32,
    hwpt: Option<&mut MaybeUninit<u32>>,
) -> c_int {
    call(connection, |agent| {
        let hwpt = wanted(hwpt, "hwpt")?;
        hwpt.write(agent.device_replace(DeviceId::new(device), ObjectId::new(target))?.get());
        Ok(())
    })
}

/// Detaches a device.
///
/// @return 0 or a negative errno.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_device_detach(connection: *mut ConnectionHandle, device: u32) -> c_int {
    call(connection, |agent| Ok(agent.device_detach(DeviceId::new(device))?))
}

/// Exports the domain of a HWPT: whoever has the descriptor that is stored to `channel` may open it with
/// ioasd_walker_open(), in this process or any other it is passed to. It is yours to close, and close-on-exec; the agent
/// takes a walker's process for gone when the last copy is closed.
///
/// @return 0 or a negative errno.
#[unsafe(no_mangle)]
pub extern "C" fn ioasd_domain_export(
    connection: *mut ConnectionHandle,
    hwpt: u32,
    channel: Option<&mut MaybeUninit<c_int>>,
) -> c_int {
    call(connection, |agent| {
        let channel = wanted(channel, "channel")?;
        channel.write(agent.domain_export(HwptId::new(hwpt))?.into_raw_fd());
        Ok(())
    })
}
