/*
 * A program written for /dev/iommu, as for a kernel with mock hardware: once through every family of commands. It prints a
 * line a family, and stops at the first answer that is not what a kernel would give. Build it and run it over ioasd:
 *
 *	cc -o iommufd examples/iommufd.c && ioasd run --mock -- ./iommufd
 *
 * The structs are those of <linux/iommufd.h> and <linux/vfio.h>, spelled out so that no recent kernel headers are needed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE 4096UL
#define LENGTH (4 * PAGE)
/* Where mock domains begin. */
#define START 0x1000000UL

enum { DESTROY = 0x3b80, IOAS_ALLOC = 0x3b81, ALLOW = 0x3b82, COPY = 0x3b83, RANGES = 0x3b84, MAP = 0x3b85,
       UNMAP = 0x3b86, OPTION = 0x3b87, VFIO_IOAS = 0x3b88, HWPT_ALLOC = 0x3b89, HW_INFO = 0x3b8a,
       SET_DIRTY = 0x3b8b, GET_DIRTY = 0x3b8c, INVALIDATE = 0x3b8d, FAULT_QUEUE = 0x3b8e, MAP_A_FILE = 0x3b8f,
       VIOMMU = 0x3b90, VDEVICE = 0x3b91, CHANGE_PROCESS = 0x3b92, VEVENTQ = 0x3b93, HW_QUEUE = 0x3b94,
       PHYSICAL = 0x3b95, TEST = 0x3ba0 };
enum { VFIO_VERSION = 0x3b64, VFIO_EXTENSION = 0x3b65, VFIO_SET = 0x3b66, VFIO_INFO = 0x3b70, VFIO_MAP = 0x3b71,
       VFIO_UNMAP = 0x3b72 };
enum { FIXED = 1, WRITEABLE = 2, READABLE = 4 };
enum { NEST_PARENT = 1, DIRTY = 2, FAULT_ID = 4, PASID = 8 };
/* Operations of the test command. */
enum { RESERVE = 1, DOMAIN, CHECK_MAP, CHECK_REFS, ACCESS, DROP_PAGES, PIN_PAGES, ACCESS_RW, MEMORY_LIMIT, REPLACE,
       REPLACE_IOAS, DOMAIN_FLAGS, WRITE_DIRTY, CHECK_IOTLB, FAULT, CHECK_CACHE, VEVENT, PASID_ATTACH, PASID_REPLACE,
       PASID_DETACH, PASID_CHECK, BUFFER, TAKE_BACK };

struct range { uint64_t start, last; };
struct alloc { uint32_t size, flags, id; };
struct destroy { uint32_t size, id; };
struct ranges { uint32_t size, ioas, count, reserved; uint64_t array, alignment; };
struct map { uint32_t size, flags, ioas, fd; uint64_t start, length, iova; };
struct copy { uint32_t size, flags, dst, src; uint64_t length, dst_iova, src_iova; };
struct unmap { uint32_t size, ioas; uint64_t iova, length; };
struct option { uint32_t size, option; uint16_t op, reserved; uint32_t object; uint64_t value; };
struct hwpt { uint32_t size, flags, dev, pt, out, reserved, type, len; uint64_t data; uint32_t fault, reserved2; };
struct info { uint32_t size, flags, dev, len; uint64_t data; uint32_t type; uint8_t pasids, reserved[3]; uint64_t can; };
struct set_dirty { uint32_t size, flags, hwpt, reserved; };
struct get_dirty { uint32_t size, hwpt, flags, reserved; uint64_t iova, length, page_size, data; };
struct invalidate { uint32_t size, hwpt; uint64_t data; uint32_t type, len, count, reserved; };
struct fault_queue { uint32_t size, flags, id; int32_t fd; };
struct fault { uint32_t flags, dev, pasid, group, perm, reserved; uint64_t address; uint32_t length, cookie; };
struct response { uint32_t cookie, code; };
struct viommu { uint32_t size, flags, type, dev, hwpt, out, len, reserved; uint64_t data; };
struct viommu_data { uint32_t in, out; uint64_t offset, length; };
struct vdevice { uint32_t size, viommu, dev, out; uint64_t number; };
struct veventq { uint32_t size, flags, viommu, type, depth, id; int32_t fd; uint32_t reserved; };
struct vevent { uint32_t flags, sequence, number; };
struct hw_queue { uint32_t size, flags, viommu, type, index, out; uint64_t iova, length; };
struct physical { uint32_t size, flags, ioas, reserved; uint64_t iova, length, phys; };
struct vfio_ioas { uint32_t size, ioas; uint16_t op, reserved; };
struct vfio_info { uint32_t argsz, flags; uint64_t pages; uint32_t capabilities, pad; char chain[256]; };
struct vfio_map { uint32_t argsz, flags; uint64_t vaddr, iova, length; };
struct vfio_unmap { uint32_t argsz, flags; uint64_t iova, length; };
struct test { uint32_t size, op, id, reserved; union { uint64_t u64[6]; uint32_t u32[12]; }; uint32_t last, pad; };

static int device, file;
static char *memory;
static const char *family;

#define REQUIRE(what) require(what, #what, __LINE__)

static void require(int holds, const char *what, int line)
{
	if (holds)
		return;
	fprintf(stderr, "%s: line %d: %s does not hold (%s)\n", family, line, what, strerror(errno));
	exit(1);
}

/* The call succeeds, or fails with this errno. */
#define CALL(command, argument) called(0, #command, command, argument, __LINE__)
#define REFUSES(wanted, command, argument) called(wanted, #command, command, argument, __LINE__)

static void called(int wanted, const char *name, unsigned long command, void *argument, int line)
{
	int found = ioctl(device, command, argument) ? errno : 0;

	if (found == wanted)
		return;
	fprintf(stderr, "%s: line %d: %s gives %s", family, line, name, strerror(found));
	fprintf(stderr, ", not %s\n", strerror(wanted));
	exit(1);
}

static uint32_t ioas_alloc(void)
{
	struct alloc alloc = { sizeof(alloc) };

	CALL(IOAS_ALLOC, &alloc);
	return alloc.id;
}

static void destroy(uint32_t id, int wanted)
{
	struct destroy destroy = { sizeof(destroy), id };

	REFUSES(wanted, DESTROY, &destroy);
}

static void map_at(uint32_t ioas, uint64_t iova, void *start, uint64_t length)
{
	struct map map = { sizeof(map), FIXED | READABLE | WRITEABLE, ioas, 0, (uintptr_t)start, length, iova };

	CALL(MAP, &map);
}

static uint64_t unmap(uint32_t ioas, uint64_t iova, uint64_t length)
{
	struct unmap unmap = { sizeof(unmap), ioas, iova, length };

	CALL(UNMAP, &unmap);
	return unmap.length;
}

/* A mock device with these flags, attached to an IOAS or HWPT. */
static struct { uint32_t stdev, hwpt, idev; } mock;

static void mock_device(uint32_t target, uint32_t flags)
{
	struct test test = { sizeof(test), DOMAIN_FLAGS, target };

	test.u32[3] = flags;
	CALL(TEST, &test);
	mock.stdev = test.u32[0];
	mock.hwpt = test.u32[1];
	mock.idev = test.u32[2];
}

static uint32_t hwpt_alloc(uint32_t target, uint32_t flags, uint32_t fault)
{
	struct hwpt hwpt = { sizeof(hwpt), flags, mock.idev, target, .fault = fault };

	CALL(HWPT_ALLOC, &hwpt);
	return hwpt.out;
}

/* A HWPT whose data say what caches begin with, and which table it has. */
static uint32_t hwpt_with_data(uint32_t target, uint32_t flags, uint32_t word, uint32_t table, uint32_t fault)
{
	uint32_t data[2] = { word, table };
	struct hwpt hwpt = { sizeof(hwpt), flags, mock.idev, target, 0, 0, 0xdead, sizeof(data), (uintptr_t)data, fault };

	CALL(HWPT_ALLOC, &hwpt);
	return hwpt.out;
}

static void replace(uint32_t target)
{
	struct test test = { sizeof(test), REPLACE, mock.stdev };

	test.u32[0] = target;
	CALL(TEST, &test);
}

static void check(uint32_t op, uint32_t id, uint32_t index, uint32_t value)
{
	struct test test = { sizeof(test), op, id };

	test.u32[0] = index;
	test.u32[1] = value;
	CALL(TEST, &test);
}

static void check_map(uint32_t hwpt, uint64_t iova, void *start, uint64_t length)
{
	struct test test = { sizeof(test), CHECK_MAP, hwpt, 0, { { iova, length, (uintptr_t)start } } };

	CALL(TEST, &test);
}

static void check_refs(uint32_t refs)
{
	struct test test = { sizeof(test), CHECK_REFS, 0, 0, { { LENGTH, (uintptr_t)memory, refs } } };

	CALL(TEST, &test);
}

static void address_spaces(void)
{
	uint32_t ioas = ioas_alloc();
	struct range found[1], window = { 0x10000, 0xfffff };
	struct ranges ranges = { sizeof(ranges), ioas, 0, 0, (uintptr_t)found };
	struct ranges allow = { 24, ioas, 1, 0, (uintptr_t)&window };
	struct map map = { sizeof(map), READABLE, ioas, 0, (uintptr_t)memory, LENGTH };

	REFUSES(EMSGSIZE, RANGES, &ranges);
	CALL(RANGES, &ranges);
	REQUIRE(ranges.count == 1 && found[0].start == 0 && found[0].last == UINT64_MAX && ranges.alignment == 1);
	CALL(ALLOW, &allow);
	CALL(MAP, &map);
	REQUIRE(map.iova >= window.start && map.iova + LENGTH - 1 <= window.last);
	destroy(ioas, 0);
	destroy(ioas, ENOENT);
}

static void options(void)
{
	uint32_t ioas;
	struct option mode = { sizeof(mode), 0, 1 };
	struct option huge = { sizeof(huge), 1, 1 };
	struct physical physical = { sizeof(physical) };

	CALL(OPTION, &mode);
	REQUIRE(mode.value == 0);
	mode.op = 0;
	mode.value = 1;
	/* Who may not raise limits may not choose either. */
	if (ioctl(device, OPTION, &mode)) {
		REQUIRE(errno == EPERM);
	} else {
		mode.value = 0;
		CALL(OPTION, &mode);
	}
	huge.object = ioas = ioas_alloc();
	CALL(OPTION, &huge);
	REQUIRE(huge.value == 1);
	huge.op = 0;
	huge.value = 0;
	CALL(OPTION, &huge);
	huge.value = 2;
	REFUSES(EINVAL, OPTION, &huge);
	REFUSES(EOPNOTSUPP, PHYSICAL, &physical);
	destroy(ioas, 0);
}

static void maps(void)
{
	uint32_t ioas = ioas_alloc(), other = ioas_alloc();
	struct map of_file = { sizeof(of_file), READABLE, ioas, file, PAGE, 2 * PAGE };
	struct copy copy = { sizeof(copy), READABLE, other, ioas, PAGE, 0, START + PAGE };
	struct map again = { sizeof(again), FIXED | READABLE, ioas, 0, (uintptr_t)memory, PAGE, START + PAGE };
	struct unmap part = { sizeof(part), ioas, START, PAGE };

	map_at(ioas, START, memory, LENGTH);
	REFUSES(EEXIST, MAP, &again);
	CALL(MAP_A_FILE, &of_file);
	CALL(COPY, &copy);
	REFUSES(ENOENT, UNMAP, &part);
	REQUIRE(unmap(ioas, START, LENGTH) == LENGTH);
	REQUIRE(unmap(ioas, 0, UINT64_MAX) == 2 * PAGE);
	REQUIRE(unmap(other, copy.dst_iova, PAGE) == PAGE);
	destroy(ioas, 0);
	destroy(other, 0);
}

static void accesses(void)
{
	uint32_t ioas = ioas_alloc(), other = ioas_alloc();
	struct test access = { sizeof(access), ACCESS, ioas };
	char back[64];

	map_at(ioas, START, memory, LENGTH);
	access.u32[1] = 1;
	CALL(TEST, &access);

	struct test rw = { sizeof(rw), ACCESS_RW, access.u32[0], 0, { { START + 7, sizeof(back), (uintptr_t)back } } };
	struct test pin = { sizeof(pin), PIN_PAGES, access.u32[0], 0, { { 1, START, LENGTH, (uintptr_t)memory } } };
	struct test drop = { sizeof(drop), DROP_PAGES, access.u32[0] };
	struct test move = { sizeof(move), REPLACE_IOAS, access.u32[0] };

	CALL(TEST, &rw);
	REQUIRE(memcmp(back, memory + 7, sizeof(back)) == 0);
	memset(back, 0xa5, sizeof(back));
	rw.u32[6] = 1;
	CALL(TEST, &rw);
	REQUIRE(memcmp(back, memory + 7, sizeof(back)) == 0);
	CALL(TEST, &pin);
	check_refs(1);
	drop.u32[0] = pin.u32[1];
	CALL(TEST, &drop);
	CALL(TEST, &pin);
	drop.u32[0] = pin.u32[1];
	REQUIRE(unmap(ioas, START, LENGTH) == LENGTH);
	REFUSES(ENOENT, TEST, &drop);
	move.u32[0] = other;
	CALL(TEST, &move);
	destroy(ioas, 0);
	destroy(other, EBUSY);
	close(access.u32[0]);
	destroy(other, 0);
}

static void hardware(void)
{
	uint32_t ioas = ioas_alloc(), words[4] = { 1, 1, 1, 1 };
	struct info info = { sizeof(info), 0, 0, sizeof(words), (uintptr_t)words };

	mock_device(ioas, 4);
	info.dev = mock.idev;
	CALL(HW_INFO, &info);
	REQUIRE(info.type == 0xfeedbeef && info.len == 8 && info.pasids == 20 && info.can == 9);
	REQUIRE(words[0] == 0 && words[1] == 0xdeadbeef && words[2] == 0 && words[3] == 0);
	info.flags = 1;
	info.type = 7;
	REFUSES(EOPNOTSUPP, HW_INFO, &info);
	destroy(mock.idev, EBUSY);
	destroy(mock.stdev, 0);
	destroy(ioas, 0);
}

static void devices(void)
{
	uint32_t ioas = ioas_alloc(), other = ioas_alloc(), shared, plain, huge, first;

	map_at(ioas, START, memory, LENGTH);
	mock_device(ioas, 0);
	first = mock.stdev;
	shared = mock.hwpt;
	mock_device(ioas, 0);
	REQUIRE(mock.hwpt == shared);
	check_map(shared, START, memory, LENGTH);
	check_refs(1);
	plain = hwpt_alloc(ioas, 0, 0);
	huge = hwpt_with_data(ioas, 0, 0, 1, 0);
	check_map(plain, START, memory, LENGTH);
	check_map(huge, START, memory, LENGTH);
	check_refs(1);
	replace(plain);
	destroy(plain, EBUSY);
	replace(other);
	destroy(plain, 0);
	destroy(huge, 0);
	destroy(mock.stdev, 0);
	destroy(first, 0);
	destroy(shared, ENOENT);
	destroy(ioas, 0);
	destroy(other, 0);
	check_refs(0);
}

static void dirty(void)
{
	uint32_t ioas = ioas_alloc(), hwpt;
	uint8_t bits[8] = { 0 }, written[8] = { 0x05 };

	mock_device(ioas, 0);
	hwpt = hwpt_alloc(ioas, DIRTY, 0);
	map_at(ioas, START, memory, LENGTH);

	struct set_dirty set = { sizeof(set), 1, hwpt };
	struct get_dirty get = { sizeof(get), hwpt, 1, 0, START, LENGTH, PAGE, (uintptr_t)bits };
	struct test write = { sizeof(write), WRITE_DIRTY, hwpt, 0, { { 0, START, LENGTH, PAGE, (uintptr_t)written } } };

	REFUSES(EINVAL, TEST, &write);
	CALL(SET_DIRTY, &set);
	CALL(TEST, &write);
	REQUIRE(write.u64[5] == 2);
	CALL(GET_DIRTY, &get);
	REQUIRE(bits[0] == 0x05);
	get.flags = 0;
	memset(bits, 0, sizeof(bits));
	CALL(GET_DIRTY, &get);
	REQUIRE(bits[0] == 0x05);
	memset(bits, 0, sizeof(bits));
	CALL(GET_DIRTY, &get);
	REQUIRE(bits[0] == 0);
	set.flags = 0;
	CALL(SET_DIRTY, &set);
	destroy(hwpt, 0);
	destroy(mock.stdev, 0);
	destroy(ioas, 0);
}

static void vfio(void)
{
	uint32_t ioas = ioas_alloc();
	struct vfio_ioas container = { sizeof(container), ioas, 1 };
	struct vfio_info info = { sizeof(info) };
	struct vfio_map map = { sizeof(map), 3, (uintptr_t)memory, START, LENGTH };
	struct vfio_unmap unmap = { sizeof(unmap), 0, START, LENGTH }, all = { sizeof(all), 2 };

	REQUIRE(ioctl(device, VFIO_VERSION, 0) == 0 && ioctl(device, VFIO_EXTENSION, 3UL) == 1);
	REFUSES(ENODEV, VFIO_MAP, &map);
	CALL(VFIO_IOAS, &container);
	REQUIRE(ioctl(device, VFIO_SET, 3UL) == 0);
	CALL(VFIO_INFO, &info);
	REQUIRE(info.flags == 3 && info.capabilities == 24);
	CALL(VFIO_MAP, &map);
	REFUSES(EEXIST, VFIO_MAP, &map);
	CALL(VFIO_UNMAP, &unmap);
	REQUIRE(unmap.length == LENGTH);
	CALL(VFIO_MAP, &map);
	CALL(VFIO_UNMAP, &all);
	REQUIRE(all.length == LENGTH);
	container.op = 2;
	CALL(VFIO_IOAS, &container);
	destroy(ioas, 0);
}

static void nested(void)
{
	uint32_t ioas = ioas_alloc(), parent, hwpt, entries[4] = { 0, 2, 0, 9 };

	mock_device(ioas, 0);
	parent = hwpt_alloc(ioas, NEST_PARENT, 0);
	hwpt = hwpt_with_data(parent, 0, 0x5a, 0, 0);
	check(CHECK_IOTLB, hwpt, 2, 0x5a);

	struct invalidate drop = { sizeof(drop), hwpt, (uintptr_t)entries, 0xdeadbeef, 8, 2 };

	REFUSES(EINVAL, INVALIDATE, &drop);
	REQUIRE(drop.count == 1);
	check(CHECK_IOTLB, hwpt, 2, 0);
	check(CHECK_IOTLB, hwpt, 3, 0x5a);
	replace(hwpt);
	destroy(hwpt, EBUSY);
	replace(ioas);
	destroy(hwpt, 0);
	destroy(parent, 0);
	destroy(mock.stdev, 0);
	destroy(ioas, 0);
}

/* A device of a guest: its vIOMMU, and what it is there. */
static struct { uint32_t ioas, parent, viommu, vdevice, hwpt; struct viommu_data data; } guest;

static void enter_guest(void)
{
	struct viommu viommu = { sizeof(viommu), 0, 0xdeadbeef };
	struct vdevice vdevice = { sizeof(vdevice), .number = 0x99 };

	guest.ioas = ioas_alloc();
	mock_device(guest.ioas, 0);
	guest.parent = hwpt_alloc(guest.ioas, NEST_PARENT, 0);
	guest.data = (struct viommu_data){ 0x1234 };
	viommu.dev = mock.idev;
	viommu.hwpt = guest.parent;
	viommu.len = sizeof(guest.data);
	viommu.data = (uintptr_t)&guest.data;
	CALL(VIOMMU, &viommu);
	guest.viommu = viommu.out;
	vdevice.viommu = viommu.out;
	vdevice.dev = mock.idev;
	CALL(VDEVICE, &vdevice);
	REFUSES(EEXIST, VDEVICE, &vdevice);
	guest.vdevice = vdevice.out;
	guest.hwpt = hwpt_with_data(guest.viommu, 0, 0x5a, 0, 0);
	replace(guest.hwpt);
}

static void leave_guest(void)
{
	replace(guest.ioas);
	destroy(guest.hwpt, 0);
	destroy(guest.vdevice, 0);
	destroy(guest.viommu, 0);
	destroy(guest.parent, 0);
	destroy(mock.stdev, 0);
	destroy(guest.ioas, 0);
}

static void viommus(void)
{
	uint32_t entry[3] = { 0, 0x99, 1 }, *pages;

	enter_guest();
	REQUIRE(guest.data.out == 0x1234 && guest.data.length == 2 * PAGE);
	pages = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, device, guest.data.offset);
	REQUIRE(pages == MAP_FAILED && errno == ENXIO);
	pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, device, guest.data.offset);
	REQUIRE(pages != MAP_FAILED && *pages == 0x1234);
	REQUIRE(munmap(pages, 2 * PAGE) == 0);

	struct invalidate drop = { sizeof(drop), guest.viommu, (uintptr_t)entry, 0xdeadbeef, 12, 1 };

	check(CHECK_CACHE, mock.idev, 1, 0xbaddad);
	CALL(INVALIDATE, &drop);
	check(CHECK_CACHE, mock.idev, 1, 0);
	check(CHECK_CACHE, mock.idev, 0, 0xbaddad);
	leave_guest();
}

static int polled(int fd)
{
	struct pollfd poll_fd = { fd, POLLIN };

	return poll(&poll_fd, 1, 0) == 1 && poll_fd.revents & POLLIN;
}

static void events(void)
{
	struct veventq queue = { sizeof(queue), .type = 0xbeefbeef, .depth = 1 };
	struct test trigger = { sizeof(trigger), VEVENT };
	struct vevent event;

	enter_guest();
	queue.viommu = guest.viommu;
	CALL(VEVENTQ, &queue);
	trigger.u32[0] = mock.idev;
	REQUIRE(!polled(queue.fd));
	CALL(TEST, &trigger);
	CALL(TEST, &trigger);
	REQUIRE(polled(queue.fd));
	REQUIRE(read(queue.fd, &event, 4) == -1 && errno == EINVAL);
	REQUIRE(read(queue.fd, &event, sizeof(event)) == sizeof(event));
	REQUIRE(event.flags == 0 && event.sequence == 0 && event.number == 0x99);
	REQUIRE(read(queue.fd, &event, sizeof(event)) == 8 && event.flags == 1 && event.sequence == 1);
	REQUIRE(read(queue.fd, &event, sizeof(event)) == 0 && !polled(queue.fd));
	destroy(queue.id, EBUSY);
	close(queue.fd);
	destroy(queue.id, 0);
	leave_guest();
}

static void hw_queues(void)
{
	struct hw_queue queue = { sizeof(queue), .type = 0xdeadbeef, .iova = START, .length = PAGE };
	struct unmap busy = { sizeof(busy), .iova = START, .length = LENGTH };

	enter_guest();
	queue.viommu = guest.viommu;
	busy.ioas = guest.ioas;
	REFUSES(ENOENT, HW_QUEUE, &queue);
	map_at(guest.ioas, START, memory, LENGTH);
	queue.index = 1;
	REFUSES(EIO, HW_QUEUE, &queue);
	queue.index = 0;
	CALL(HW_QUEUE, &queue);
	REFUSES(EBUSY, UNMAP, &busy);
	destroy(queue.out, 0);
	CALL(UNMAP, &busy);
	leave_guest();
}

static void faults(void)
{
	uint32_t ioas = ioas_alloc(), parent, hwpt;
	struct fault_queue queue = { sizeof(queue) };
	struct test trigger = { sizeof(trigger), FAULT };
	struct fault fault;
	struct response response = { 0, 2 };

	mock_device(ioas, 0);
	CALL(FAULT_QUEUE, &queue);
	parent = hwpt_alloc(ioas, NEST_PARENT, 0);
	hwpt = hwpt_with_data(parent, FAULT_ID, 0, 0, queue.id);
	replace(hwpt);
	trigger.u32[0] = mock.idev;
	trigger.u32[2] = 7;
	trigger.u32[3] = 2;
	trigger.u64[2] = START;
	REQUIRE(read(queue.fd, &fault, sizeof(fault)) == 0 && !polled(queue.fd));
	CALL(TEST, &trigger);
	REQUIRE(polled(queue.fd) && read(queue.fd, &fault, 39) == -1 && errno == ESPIPE);
	REQUIRE(read(queue.fd, &fault, sizeof(fault)) == sizeof(fault));
	REQUIRE(fault.flags == 2 && fault.dev == mock.idev && fault.group == 7 && fault.perm == 2);
	REQUIRE(fault.address == START && fault.cookie == 1);
	response.cookie = fault.cookie;
	REQUIRE(write(queue.fd, &response, sizeof(response)) == -1 && errno == EINVAL);
	response.code = 0;
	REQUIRE(write(queue.fd, &response, sizeof(response)) == sizeof(response));
	REQUIRE(write(queue.fd, &response, sizeof(response)) == -1 && errno == EINVAL);
	replace(ioas);
	destroy(hwpt, 0);
	destroy(parent, 0);
	close(queue.fd);
	destroy(queue.id, 0);
	destroy(mock.stdev, 0);
	destroy(ioas, 0);
}

static void pasids(void)
{
	uint32_t ioas = ioas_alloc(), plain, first, second;
	struct test attach = { sizeof(attach), PASID_ATTACH };

	mock_device(ioas, 4);
	plain = hwpt_alloc(ioas, 0, 0);
	first = hwpt_alloc(ioas, PASID, 0);
	second = hwpt_alloc(ioas, PASID, 0);
	attach.id = mock.stdev;
	attach.u32[0] = 100;
	attach.u32[1] = first;
	REFUSES(EINVAL, TEST, &attach);
	replace(first);
	attach.u32[1] = plain;
	REFUSES(EINVAL, TEST, &attach);
	check(PASID_ATTACH, mock.stdev, 100, first);
	check(PASID_CHECK, mock.stdev, 100, first);
	attach.u32[1] = first;
	REFUSES(EBUSY, TEST, &attach);
	check(PASID_REPLACE, mock.stdev, 100, second);
	check(PASID_CHECK, mock.stdev, 100, second);
	check(PASID_DETACH, mock.stdev, 100, 0);
	check(PASID_CHECK, mock.stdev, 100, 0);
	destroy(mock.stdev, 0);
	destroy(plain, 0);
	destroy(first, 0);
	destroy(second, 0);
	destroy(ioas, 0);
}

static void processes(void)
{
	uint32_t ioas = ioas_alloc(), change[2] = { sizeof(change) };
	struct map map = { sizeof(map), FIXED | READABLE | WRITEABLE, ioas, file, 0, LENGTH, START };
	int status, child;

	mock_device(ioas, 0);
	CALL(MAP_A_FILE, &map);
	child = fork();
	if (child == 0)
		_exit(ioctl(device, CHANGE_PROCESS, change) ? errno : 0);
	REQUIRE(waitpid(child, &status, 0) == child && status == 0);
	check_map(mock.hwpt, START, memory, LENGTH);
	CALL(CHANGE_PROCESS, change);
	map_at(ioas, START + LENGTH, memory, LENGTH);
	REFUSES(EINVAL, CHANGE_PROCESS, change);
	destroy(mock.stdev, 0);
	destroy(ioas, 0);
}

static void device_memory(void)
{
	uint32_t ioas = ioas_alloc();
	struct test buffer = { sizeof(buffer), BUFFER }, back = { sizeof(back), TAKE_BACK };
	struct map map = { sizeof(map), FIXED | READABLE | WRITEABLE, ioas, 0, 0, LENGTH, START };
	struct test access = { sizeof(access), ACCESS, ioas };

	mock_device(ioas, 0);
	REFUSES(EINVAL, TEST, &buffer);
	buffer.u32[0] = LENGTH;
	map.fd = back.u32[0] = ioctl(device, TEST, &buffer);
	REQUIRE((int)map.fd > 2);
	map.start = PAGE;
	REFUSES(EINVAL, MAP_A_FILE, &map);
	map.start = 0;
	CALL(MAP_A_FILE, &map);
	access.u32[1] = 1;
	CALL(TEST, &access);

	struct test pin = { sizeof(pin), PIN_PAGES, access.u32[0], 0, { { 0, START, LENGTH } } };

	REFUSES(EINVAL, TEST, &pin);
	close(access.u32[0]);
	back.u32[1] = 1;
	CALL(TEST, &back);
	map.iova += LENGTH;
	REFUSES(ENODEV, MAP_A_FILE, &map);
	back.u32[1] = 0;
	CALL(TEST, &back);
	CALL(MAP_A_FILE, &map);
	close(map.fd);
	REQUIRE(unmap(ioas, START, 2 * LENGTH) == 2 * LENGTH);
	destroy(mock.stdev, 0);
	destroy(ioas, 0);
}

static const struct { const char *name; void (*run)(void); } families[] = {
	{ "address spaces", address_spaces }, { "options", options }, { "maps and copies", maps },
	{ "accesses", accesses }, { "hardware information", hardware }, { "devices and HWPTs", devices },
	{ "dirty tracking", dirty }, { "VFIO", vfio }, { "nested HWPTs", nested }, { "vIOMMUs and vDEVICEs", viommus },
	{ "events of vIOMMUs", events }, { "hardware queues", hw_queues }, { "faults", faults }, { "PASIDs", pasids },
	{ "change of process", processes }, { "memory of devices", device_memory },
};

int main(void)
{
	unsigned int count = sizeof(families) / sizeof(families[0]);

	family = "/dev/iommu";
	file = memfd_create("memory", MFD_CLOEXEC);
	REQUIRE(file >= 0 && ftruncate(file, LENGTH) == 0);
	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	REQUIRE(memory != MAP_FAILED);
	memset(memory, 0x5a, LENGTH);
	device = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	REQUIRE(device >= 0);
	for (unsigned int i = 0; i < count; i++) {
		family = families[i].name;
		families[i].run();
		printf("%s: ok\n", family);
	}
	printf("all done: %u families of commands\n", count);
	return 0;
}
