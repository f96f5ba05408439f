/*
 * A program written for /dev/iommu, as for a kernel with mock hardware. Build it and run it over ioasd:
 *
 *	cc -o iommufd examples/iommufd.c && ioasd run --mock -- ./iommufd
 *
 * The structs are those of <linux/iommufd.h>, spelled out so that no recent kernel headers are needed.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

enum { DESTROY = 0x3b80, IOAS_ALLOC = 0x3b81, ALLOW = 0x3b82, COPY = 0x3b83, RANGES = 0x3b84, MAP = 0x3b85,
       UNMAP = 0x3b86, OPTION = 0x3b87, VFIO_IOAS = 0x3b88, HWPT_ALLOC = 0x3b89, MAP_A_FILE = 0x3b8f,
       TEST = 0x3ba0, VFIO_MAP = 0x3b71, VFIO_UNMAP = 0x3b72 };
enum { READABLE = 4, WRITEABLE = 2, FIXED = 1, LENGTH = 4 * 4096 };

struct range { uint64_t start, last; };
struct alloc { uint32_t size, flags, id; };
struct destroy { uint32_t size, id; };
struct ranges { uint32_t size, ioas, count, reserved; uint64_t array, alignment; };
struct map { uint32_t size, flags, ioas, fd; uint64_t start, length, iova; };
struct copy { uint32_t size, flags, dst, src; uint64_t length, dst_iova, src_iova; };
struct unmap { uint32_t size, ioas; uint64_t iova, length; };
struct option { uint32_t size, option; uint16_t op, reserved; uint32_t object; uint64_t value; };
struct hwpt { uint32_t size, flags, dev, pt, out, reserved, type, len; uint64_t data; uint32_t fault, reserved2; };
struct vfio_ioas { uint32_t size, ioas; uint16_t op, reserved; };
struct vfio_map { uint32_t argsz, flags; uint64_t vaddr, iova, length; };
struct vfio_unmap { uint32_t argsz, flags; uint64_t iova, length; };
struct test { uint32_t size, op, id, reserved; union { uint64_t u64[6]; uint32_t u32[12]; }; uint32_t last, pad; };

static int device;

#define CALL(command, argument) call(#command, command, argument)

static void call(const char *name, unsigned long command, void *argument)
{
	if (ioctl(device, command, argument)) {
		fprintf(stderr, "%s: %s\n", name, strerror(errno));
		_exit(1);
	}
	printf("%s ok\n", name);
}

int main(void)
{
	int file = memfd_create("memory", MFD_CLOEXEC);
	char *memory, back[64];

	device = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (device < 0 || file < 0 || ftruncate(file, LENGTH)) {
		perror("/dev/iommu");
		return 1;
	}
	memory = mmap(NULL, LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
	if (memory == MAP_FAILED)
		return 1;
	memset(memory, 0x5a, LENGTH);

	struct alloc ioas = { sizeof(ioas) }, second = { sizeof(second) };
	CALL(IOAS_ALLOC, &ioas);
	CALL(IOAS_ALLOC, &second);
	struct range window = { 0x1000000, 0x7fffffff };
	struct ranges allow = { 24, ioas.id, 1, 0, (uintptr_t)&window };
	CALL(ALLOW, &allow);
	struct ranges all = { sizeof(all), ioas.id, 1, 0, (uintptr_t)&window };
	CALL(RANGES, &all);
	struct option huge = { sizeof(huge), 1, 1, 0, ioas.id };
	CALL(OPTION, &huge);

	struct test domain = { sizeof(domain), 2, ioas.id };
	CALL(TEST, &domain);
	struct hwpt hwpt = { sizeof(hwpt), 0, domain.u32[2], ioas.id };
	CALL(HWPT_ALLOC, &hwpt);

	struct map map = { sizeof(map), READABLE | WRITEABLE, ioas.id, 0, (uintptr_t)memory, LENGTH };
	CALL(MAP, &map);
	struct map of_file = { sizeof(of_file), READABLE, ioas.id, file, 0, LENGTH };
	CALL(MAP_A_FILE, &of_file);
	struct copy copy = { sizeof(copy), READABLE, second.id, ioas.id, LENGTH, 0, map.iova };
	CALL(COPY, &copy);
	struct test check = { sizeof(check), 3, domain.u32[1], 0, { { map.iova, LENGTH, (uintptr_t)memory } } };
	CALL(TEST, &check);

	struct test access = { sizeof(access), 5, second.id };
	CALL(TEST, &access);
	struct test rw = { sizeof(rw), 8, access.u32[0], 0, { { copy.dst_iova + 7, sizeof(back), (uintptr_t)back } } };
	CALL(TEST, &rw);
	if (memcmp(back, memory + 7, sizeof(back))) {
		fprintf(stderr, "other bytes came back\n");
		return 1;
	}
	close(access.u32[0]);

	struct unmap unmap = { sizeof(unmap), ioas.id, 0, UINT64_MAX };
	CALL(UNMAP, &unmap);
	struct vfio_ioas container = { sizeof(container), second.id, 1 };
	CALL(VFIO_IOAS, &container);
	struct vfio_map dma = { sizeof(dma), 3, (uintptr_t)memory, 0x10000000, LENGTH };
	CALL(VFIO_MAP, &dma);
	struct vfio_unmap undma = { sizeof(undma), 0, 0x10000000, LENGTH };
	CALL(VFIO_UNMAP, &undma);
	struct destroy destroy = { sizeof(destroy), second.id };
	CALL(DESTROY, &destroy);
	printf("all done: %llu bytes were unmapped\n", (unsigned long long)unmap.length);
	return 0;
}
