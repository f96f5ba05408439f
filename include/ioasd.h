/*
 * SPDX-License-Identifier: MIT OR Apache-2.0
 *
 * libioasd: DMA address spaces from the agent ioasd, and walkers that translate in them without a message.
 * Made from crates/ioasd-c; do not edit. docs/c.md leads through it, examples/device.c uses it.
 *
 * Functions return 0, or a negative errno; ioasd_error_text() and ioasd_error_code() say more on the same thread.
 * What they find they store through a pointer, which must not be NULL unless that is said, and only if they succeed.
 *
 * Descriptors that you pass stay yours to close; descriptors that you get are yours to close.
 *
 * Handles (struct ioasd_connection and so on) are opaque. All but streams may be used by any thread. Using one that was
 * closed, or NULL, is -EBADF or -EINVAL. Of a stream that was closed this holds until another one is opened, which may
 * come to have the same handle, as with descriptors.
 *
 * Strings end with a zero byte. Buffers are yours again when a function returns. Addresses and lengths are in bytes.
 */


#ifndef IOASD_H
#define IOASD_H

#include <stddef.h>
#include <stdint.h>

/**
 * The interface that this header describes. A program that loads the library itself (dlopen()) compares it with what
 * ioasd_abi() answers; for others the name libioasd.so.0 says the same.
 */
#define IOASD_ABI 0

/**
 * Memory may be read, or is to be read.
 */
#define IOASD_READ 1

/**
 * Memory may be written, or is to be written.
 */
#define IOASD_WRITE 2

/**
 * For ioasd_device_create(): the device is behind an IOMMU of its own, so that it gets a domain of its own.
 */
#define IOASD_DEVICE_OWN_IOMMU 1

/**
 * For ioasd_access_create(): the access may pin; its areas must then be aligned to pages.
 */
#define IOASD_ACCESS_MAY_PIN 1

/**
 * For ioasd_stream_open(): the stream remembers the pages it came to last. Good for devices that go through memory in
 * order or come back to the same pages; not for accesses at random to more than 4 MiB.
 */
#define IOASD_STREAM_IOTLB 1

/**
 * For ioasd_notices_receive(): wait until a notice comes.
 */
#define IOASD_NOTICES_WAIT 1

/**
 * Why memory was not reached.
 */
enum ioasd_fault {
        /**
         * Nothing is mapped.
         */
        IOASD_FAULT_NOT_PRESENT = 1,
        /**
         * Mapped, but not for this.
         */
        IOASD_FAULT_PERMISSION = 2,
        /**
         * The tables hold something that their format does not allow.
         */
        IOASD_FAULT_MALFORMED = 3,
        /**
         * Mapped to a file that is not known here yet, or cannot be used: ioasd_learn() tells.
         */
        IOASD_FAULT_NOT_EXPORTED = 4,
        /**
         * The tables do not translate such addresses.
         */
        IOASD_FAULT_OUTSIDE_APERTURE = 5,
        /**
         * The agent does not serve the domain any more.
         */
        IOASD_FAULT_DEAD = 6,
};

/**
 * Page-table formats, for ioasd_device_create(). A device that is software may take any; IOASD_FORMAT_AMD_V1 has most
 * sizes of leaves.
 */
enum ioasd_format {
        /**
         * AMD v1 host page tables, 4 levels.
         */
        IOASD_FORMAT_AMD_V1 = 1,
        /**
         * AMD v1 with a granule of 2 KiB, 3 levels: for tests of mappings smaller than a page.
         */
        IOASD_FORMAT_AMD_V1_2K = 2,
        /**
         * Intel VT-d second stage, 4 levels.
         */
        IOASD_FORMAT_VTD_SS = 3,
        /**
         * Arm VMSAv8-64 stage 2, granule of 4 KiB, 4 levels.
         */
        IOASD_FORMAT_ARM_S2 = 4,
        /**
         * RISC-V Sv48.
         */
        IOASD_FORMAT_RISCV_SV48 = 5,
        /**
         * RISC-V Sv57.
         */
        IOASD_FORMAT_RISCV_SV57 = 6,
};

/**
 * A connection to the agent: a context, whose objects have numbers of their own, or a further channel of one.
 *
 * Any thread may use it; calls of several threads wait for each other. Every call waits for the agent's answer.
 * Whatever a context has mapped is gone when the last descriptor of its connection is closed, in whatever process.
 */
struct ioasd_connection;

/**
 * What tells an access what to let go of. Any thread may use it; one that waits in it keeps others waiting.
 *
 * A notice that is not acknowledged within a second counts as missed; after three of them whoever unmaps is refused with
 * EDEADLK. When it is closed, the access lets go of everything at once.
 */
struct ioasd_notices;

/**
 * The right of one thread to translate in a walker's domain.
 *
 * It belongs to the thread that opened it, which alone may use it and must close it; any other gets -EPERM, and so does
 * the child of a fork(). Open one for each thread that translates.
 */
struct ioasd_stream;

/**
 * An exported domain that was opened here. Any thread may open streams of it.
 */
struct ioasd_walker;

/**
 * Memory that an IOVA leads to, until ioasd_leave().
 */
struct ioasd_memory {
        /**
         * Where it is. Others may change it at any time: read what matters once, with ioasd_load_u32() and the like or with
         * atomics of your own. Write to it only if you asked for IOASD_WRITE.
         */
        void *address;
        /**
         * How many bytes.
         */
        size_t length;
        /**
         * What devices may do: IOASD_READ, IOASD_WRITE or both.
         */
        uint32_t permission;
};

/**
 * What is left of a range, for ioasd_translate_next().
 */
struct ioasd_rest {
        /**
         * The first address.
         */
        uint64_t iova;
        /**
         * How many bytes.
         */
        uint64_t length;
};

/**
 * An access that did not reach memory.
 */
struct ioasd_walk_fault {
        /**
         * The address.
         */
        uint64_t iova;
        /**
         * The last entry of the tables that was read.
         */
        uint64_t entry;
        /**
         * Its level: 0 is that of pages.
         */
        uint32_t level;
        /**
         * Why.
         */
        enum ioasd_fault kind;
};

/**
 * Asks an access to unpin everything from `iova` to `last`.
 */
struct ioasd_notice {
        /**
         * The first address.
         */
        uint64_t iova;
        /**
         * The last address: the range may end at 2^64 - 1.
         */
        uint64_t last;
        /**
         * Which notice it is.
         */
        uint64_t tag;
        /**
         * The access.
         */
        uint32_t access;
};

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * What the last function that failed on this thread has to say, in words for people: which object, which range, what
 * was found, what to do. "" if none has failed. Good until another function fails on this thread.
 */
const char *ioasd_error_text(void);

/**
 * The name of the kind of error with which the last function failed on this thread, for programs: the agent's code, such
 * as "no-such-object", or one of this library, such as "not-in-burst". Names do not change between versions. "" if none
 * has failed. Good until another function fails on this thread.
 */
const char *ioasd_error_code(void);

/**
 * The version of the library, such as "0.1.0".
 */
const char *ioasd_version(void);

/**
 * The interface of the library: the IOASD_ABI of the header it was built with.
 */
uint32_t ioasd_abi(void);

/**
 * Connects to the agent's socket at `path`, such as "/run/ioasd/ioasd.sock": a new context. The connection is stored to
 * `connection`; close it with ioasd_close().
 *
 * @return 0; -ECONNREFUSED or -ENOENT if no agent listens there, -EACCES if it is not for this user.
 */
int ioasd_connect(const char *path,
                  struct ioasd_connection **connection);

/**
 * Takes over a socket that is connected to an agent already, for instance one that was inherited. The connection uses a
 * duplicate: `socket` stays yours to close.
 *
 * @return 0; -EBADF if `socket` is not open.
 */
int ioasd_connect_fd(int socket,
                     struct ioasd_connection **connection);

/**
 * Opens a further channel to the same context, for another thread: calls of different connections do not wait for each
 * other. It ends with the context, or with ioasd_close().
 *
 * @return 0; -EMFILE if the context has too many.
 */
int ioasd_channel_open(struct ioasd_connection *connection,
                       struct ioasd_connection **channel);

/**
 * The socket of a connection, to poll() it: it is readable outside of a call only when the agent has hung up. It stays
 * the connection's: do not close it, and do not use it when the connection is closed.
 *
 * @return the descriptor; -EBADF if the connection is not open.
 */
int ioasd_connection_fd(struct ioasd_connection *connection);

/**
 * Closes a connection, as soon as calls of other threads are answered. If it was the last one of its context, all objects
 * of the context are destroyed.
 *
 * @return 0; -EBADF if it is not open.
 */
int ioasd_close(struct ioasd_connection *connection);

/**
 * Makes an IO address space. Its number is stored to `ioas`.
 *
 * @return 0 or a negative errno.
 */
int ioasd_ioas_alloc(struct ioasd_connection *connection, uint32_t *ioas);

/**
 * Destroys an object, whatever it is: an address space (with all that is mapped in it), a device, a HWPT, an access.
 *
 * @return 0; -ENOENT if there is none with this number, -EBUSY if another object still needs it.
 */
int ioasd_destroy(struct ioasd_connection *connection,
                  uint32_t object);

/**
 * Maps `length` bytes of a file from `offset` on, where the agent finds room. The IOVA is stored to `iova`.
 *
 * The file must be memory (a memfd, or a file of tmpfs or hugetlbfs), and its bytes must be there: write or fallocate()
 * them first. Seal it against shrinking (F_SEAL_SHRINK), or walkers are not given it. The agent keeps a descriptor of
 * its own; `fd` stays yours to close.
 *
 * @param permission IOASD_READ, IOASD_WRITE or both: what devices may do.
 * @return 0; -ENOMEM if a limit is in the way or bytes are not there, -EINVAL if it is not memory, -ENOSPC if there is
 * no room.
 */
int ioasd_map_file(struct ioasd_connection *connection,
                   uint32_t ioas,
                   int fd,
                   uint64_t offset,
                   uint64_t length,
                   uint32_t permission,
                   uint64_t *iova);

/**
 * The same, at an IOVA that you choose.
 *
 * @return as ioasd_map_file(); -EEXIST if something is mapped there, -EINVAL if the address is not aligned or reserved.
 */
int ioasd_map_file_at(struct ioasd_connection *connection,
                      uint32_t ioas,
                      int fd,
                      uint64_t offset,
                      uint64_t length,
                      uint32_t permission,
                      uint64_t iova);

/**
 * Removes what is mapped within `length` bytes at `iova`, which must not cut a mapping in two. When it returns, no device
 * looks at the memory any more: the agent has waited for every burst that might.
 *
 * @param unmapped if not NULL, the number of bytes that were mapped is stored there.
 * @return 0; -ENOENT if nothing is mapped there or a mapping would be cut, -EDEADLK if this thread is in a burst or an
 * access does not let go, -ETIMEDOUT if a walker does not leave and the agent is set up not to wait longer.
 */
int ioasd_unmap(struct ioasd_connection *connection,
                uint32_t ioas,
                uint64_t iova,
                uint64_t length,
                uint64_t *unmapped);

/**
 * Removes everything that is mapped in an address space.
 *
 * @param unmapped if not NULL, the number of bytes that were mapped is stored there.
 * @return as ioasd_unmap().
 */
int ioasd_unmap_all(struct ioasd_connection *connection, uint32_t ioas, uint64_t *unmapped);

/**
 * Shows `length` bytes at `source_iova` of the address space `source` in the address space `target` (or the same) as
 * well, where the agent finds room. The memory is pinned and charged once, however often it is shown.
 *
 * @param permission not more than what the source has.
 * @return 0; -ENOENT if the source is not mapped, and as ioasd_map_file().
 */
int ioasd_copy(struct ioasd_connection *connection,
               uint32_t source,
               uint64_t source_iova,
               uint64_t length,
               uint32_t target,
               uint32_t permission,
               uint64_t *iova);

/**
 * The same, at an IOVA that you choose.
 *
 * @return as ioasd_copy() and ioasd_map_file_at().
 */
int ioasd_copy_at(struct ioasd_connection *connection,
                  uint32_t source,
                  uint64_t source_iova,
                  uint64_t length,
                  uint32_t target,
                  uint32_t permission,
                  uint64_t iova);

/**
 * Makes a software device, whose domains are tables of a format of enum ioasd_format. Its number is stored to `device`.
 *
 * @param flags 0 or IOASD_DEVICE_OWN_IOMMU.
 * @return 0 or a negative errno.
 */
int ioasd_device_create(struct ioasd_connection *connection,
                        uint32_t format,
                        uint32_t flags,
                        uint32_t *device);

/**
 * Attaches a device to an address space or a HWPT. The number of the HWPT that serves it, which ioasd_domain_export()
 * takes, is stored to `hwpt`.
 *
 * @return 0; -ENOMEM if a limit is in the way of what is mapped already.
 */
int ioasd_device_attach(struct ioasd_connection *connection,
                        uint32_t device,
                        uint32_t target,
                        uint32_t *hwpt);

/**
 * Attaches a device, which is attached already, to another address space or HWPT.
 *
 * @return as ioasd_device_attach(); the device stays where it is then.
 */
int ioasd_device_replace(struct ioasd_connection *connection,
                         uint32_t device,
                         uint32_t target,
                         uint32_t *hwpt);

/**
 * Detaches a device.
 *
 * @return 0 or a negative errno.
 */
int ioasd_device_detach(struct ioasd_connection *connection, uint32_t device);

/**
 * Exports the domain of a HWPT: whoever has the descriptor that is stored to `channel` may open it with
 * ioasd_walker_open(), in this process or any other it is passed to. It is yours to close, and close-on-exec; the agent
 * takes a walker's process for gone when the last copy is closed.
 *
 * @return 0 or a negative errno.
 */
int ioasd_domain_export(struct ioasd_connection *connection,
                        uint32_t hwpt,
                        int *channel);

/**
 * Opens the domain behind a descriptor that ioasd_domain_export() gave, and stores the walker to `walker`; close it with
 * ioasd_walker_close(). The tables and the memory behind them are mapped. The walker uses a duplicate: `channel` stays
 * yours to close.
 *
 * @return 0; -EMFILE if too many walkers were opened through this channel, -EPROTO if it is not one.
 */
int ioasd_walker_open(int channel,
                      struct ioasd_walker **walker);

/**
 * Closes a walker. Its streams go on until they are closed, too.
 *
 * @return 0; -EBADF if it is not open.
 */
int ioasd_walker_close(struct ioasd_walker *walker);

/**
 * Opens a stream for the calling thread and stores it to `stream`; close it with ioasd_stream_close(), on this thread.
 *
 * @param flags 0 or IOASD_STREAM_IOTLB.
 * @return 0; -EMFILE if the walker has as many streams as it can, which are 64: open another walker.
 */
int ioasd_stream_open(struct ioasd_walker *walker,
                      uint32_t flags,
                      struct ioasd_stream **stream);

/**
 * Closes a stream; a burst it is in ends.
 *
 * @return 0; -EBADF if it is closed already, -EPERM if it is another thread's.
 */
int ioasd_stream_close(struct ioasd_stream *stream);

/**
 * Begins a burst. Until ioasd_leave() everything that this stream translates stays where it is; whoever unmaps it waits
 * for that. So a burst must be short: no waiting, no call of the agent (they are refused with -EDEADLK).
 *
 * @return 0; -EBUSY if the stream is in a burst already, -EBADF if it is closed, -EPERM if it is another thread's.
 */
int ioasd_enter(struct ioasd_stream *stream);

/**
 * Ends a burst. No address that was translated in it may be used any more.
 *
 * @return 0; -EBADFD if the stream is in no burst, -EBADF if it is closed, -EPERM if it is another thread's.
 */
int ioasd_leave(struct ioasd_stream *stream);

/**
 * Finds the memory behind the `length` bytes at `iova`, or behind the first of them: what does not lie together comes in
 * pieces, see ioasd_translate_next(). No message and no system call. Only in a burst.
 *
 * @param access IOASD_READ or IOASD_WRITE: what is to be done with it.
 * @return 0; -EFAULT if the first byte cannot be reached, ioasd_stream_fault() tells why; -EAGAIN if it lies in a file
 * that is not known here: leave the burst, call ioasd_learn(), and enter again; -ENODEV if the agent is gone or has
 * destroyed the domain; -EBADFD if the stream is in no burst, -EBADF if it is closed, -EPERM if it is another thread's.
 */
int ioasd_translate(struct ioasd_stream *stream,
                    uint64_t iova,
                    uint64_t length,
                    uint32_t access,
                    struct ioasd_memory *memory);

/**
 * Finds the next piece of memory behind `rest`, and takes it off `rest`:
 *
 *     struct ioasd_rest rest = { iova, length };
 *     while ((found = ioasd_translate_next(stream, &rest, IOASD_READ, &memory)) > 0)
 *             use(memory.address, memory.length);
 *
 * @return 1 if there is a piece, 0 if nothing is left; else as ioasd_translate(), and `rest` begins with the byte that
 * cannot be reached.
 */
int ioasd_translate_next(struct ioasd_stream *stream,
                         struct ioasd_rest *rest,
                         uint32_t access,
                         struct ioasd_memory *memory);

/**
 * Learns of the file behind the address at which the last burst met -EAGAIN. Asks the agent, so only outside of a burst:
 *
 *     do {
 *             ioasd_enter(stream);
 *             error = ...;
 *             ioasd_leave(stream);
 *     } while (error == -EAGAIN && !(error = ioasd_learn(stream)));
 *
 * @return 0: enter again; -EPERM if the file is not one that walkers are given, -EFAULT if it was learned of before and
 * does not help: treat both as faults.
 */
int ioasd_learn(struct ioasd_stream *stream);

/**
 * Stores the last fault of the burst that the stream is in, or was in last.
 *
 * @return 0; -ENODATA if there was none.
 */
int ioasd_stream_fault(struct ioasd_stream *stream, struct ioasd_walk_fault *fault);

/**
 * Copies `length` bytes at `iova` to `into`. Bytes that others change meanwhile may arrive old or new. Only in a burst.
 *
 * @return as ioasd_translate(); bytes before the one that cannot be reached are copied.
 */
int ioasd_read(struct ioasd_stream *stream,
               uint64_t iova,
               void *into,
               size_t length);

/**
 * Copies `length` bytes of `from` to `iova`. Only in a burst.
 *
 * @return as ioasd_translate(); bytes before the one that cannot be reached are copied.
 */
int ioasd_write(struct ioasd_stream *stream, uint64_t iova, const void *from, size_t length);

/**
 * Loads the 16 bits at `iova`, in the order of this machine's bytes, with acquire: what their writer wrote before them is
 * seen after them. For the indexes of rings, which others write at the same time. Only in a burst.
 *
 * @return as ioasd_translate(); -EINVAL if the address is not a multiple of their length.
 */
int ioasd_load_u16(struct ioasd_stream *stream,
                   uint64_t iova,
                   uint16_t *value);

/**
 * The same with 32 bits.
 */
int ioasd_load_u32(struct ioasd_stream *stream, uint64_t iova, uint32_t *value);

/**
 * The same with 64 bits.
 */
int ioasd_load_u64(struct ioasd_stream *stream, uint64_t iova, uint64_t *value);

/**
 * Stores 16 bits to `iova`, in the order of this machine's bytes, with release: whoever sees them sees what was written
 * before them. Only in a burst.
 *
 * @return as ioasd_translate(); -EINVAL if the address is not a multiple of their length.
 */
int ioasd_store_u16(struct ioasd_stream *stream,
                    uint64_t iova,
                    uint16_t value);

/**
 * The same with 32 bits.
 */
int ioasd_store_u32(struct ioasd_stream *stream, uint64_t iova, uint32_t value);

/**
 * The same with 64 bits.
 */
int ioasd_store_u64(struct ioasd_stream *stream, uint64_t iova, uint64_t value);

/**
 * Makes an access of an address space. Its number is stored to `access`.
 *
 * @param flags 0 or IOASD_ACCESS_MAY_PIN.
 * @return 0 or a negative errno.
 */
int ioasd_access_create(struct ioasd_connection *connection, uint32_t ioas, uint32_t flags, uint32_t *access);

/**
 * The same, for an access that is told what to let go of before it is unmapped. What tells it is stored to `notices`;
 * close it with ioasd_notices_close().
 *
 * @return 0 or a negative errno.
 */
int ioasd_access_create_with_notices(struct ioasd_connection *connection,
                                     uint32_t ioas,
                                     uint32_t flags,
                                     uint32_t *access,
                                     struct ioasd_notices **notices);

/**
 * Pins the pages behind `length` bytes at `iova`.
 *
 * @param intent IOASD_READ, or IOASD_WRITE if they are to be written as well.
 * @return 0; -ENOENT if not all of it is mapped, -EPERM if it may not be written, -ENOMEM if a limit is in the way.
 */
int ioasd_access_pin(struct ioasd_connection *connection,
                     uint32_t access,
                     uint64_t iova,
                     uint64_t length,
                     uint32_t intent);

/**
 * Lets go of what was pinned with the same range.
 *
 * @return 0; -ENOENT if it was not pinned.
 */
int ioasd_access_unpin(struct ioasd_connection *connection, uint32_t access, uint64_t iova, uint64_t length);

/**
 * Reads `length` bytes at `iova`, at most 61440, into `into`. A message to the agent and back; for devices that are not
 * given the memory itself.
 *
 * @return 0; -ENOENT if not all of it is mapped, -EPERM if it may not be read.
 */
int ioasd_access_read(struct ioasd_connection *connection,
                      uint32_t access,
                      uint64_t iova,
                      void *into,
                      size_t length);

/**
 * Writes `length` bytes of `from`, at most 61440, to `iova`.
 *
 * @return 0; -ENOENT if not all of it is mapped, -EPERM if it may not be written.
 */
int ioasd_access_write(struct ioasd_connection *connection,
                       uint32_t access,
                       uint64_t iova,
                       const void *from,
                       size_t length);

/**
 * The descriptor of a notice channel, to poll() it: readable when a notice waits. It stays the channel's: do not close
 * it, and do not use it when the channel is closed.
 *
 * @return the descriptor; -EBADF if the channel is not open.
 */
int ioasd_notices_fd(struct ioasd_notices *notices);

/**
 * Stores the next notice to `notice`. Unpin what lies in its range, on any connection, then acknowledge it.
 *
 * @param flags 0, or IOASD_NOTICES_WAIT to wait until there is one.
 * @return 0; -EAGAIN if none waits; -ECONNRESET if the access or its context is gone.
 */
int ioasd_notices_receive(struct ioasd_notices *notices, uint32_t flags, struct ioasd_notice *notice);

/**
 * Tells the agent that everything a notice asked for is unpinned, or cannot be.
 *
 * @return 0; -EAGAIN if the agent does not read: later again.
 */
int ioasd_notices_acknowledge(struct ioasd_notices *notices, const struct ioasd_notice *notice);

/**
 * Closes a notice channel: the access lets go of everything, soon. If it is to be destroyed, do that first.
 *
 * @return 0; -EBADF if it is not open.
 */
int ioasd_notices_close(struct ioasd_notices *notices);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* IOASD_H */
