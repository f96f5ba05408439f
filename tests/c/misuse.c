/* Whatever is done wrong gives an errno that says what, and leaves everything as it was. */
#include "check.h"

static const char *path;
static struct ioasd_connection *agent;
static struct ioasd_walker *walker;
static struct ioasd_stream *stream;
static uint32_t ioas, device, hwpt;
static int file, channel;
static const uint64_t IOVA = 0x100000;

static void *nowhere(unsigned long number)
{
	return (void *)number;
}

static void arguments(void)
{
	struct ioasd_connection *gone, *none = NULL;
	uint64_t iova;

	EXPECT(-EINVAL, ioasd_connect(NULL, &none));
	EXPECT(-EINVAL, ioasd_connect(path, NULL));
	CODE("null-argument");
	EXPECT(-ENOENT, ioasd_connect("/nowhere/ioasd.sock", &none));
	CODE("system-call-failed");
	EXPECT(-EBADF, ioasd_connect_fd(-1, &none));
	HOLDS(!none);

	EXPECT(0, ioasd_connect(path, &gone));
	EXPECT(0, ioasd_close(gone));
	EXPECT(-EBADF, ioasd_close(gone));
	EXPECT(-EBADF, ioasd_unmap_all(gone, 1, NULL));
	CODE("not-open");
	EXPECT(-EBADF, ioasd_connection_fd(NULL));
	EXPECT(-EBADF, ioasd_close(nowhere(0x123450)));
	EXPECT(-EBADF, ioasd_notices_close(nowhere(16)));
	EXPECT(-EBADF, ioasd_walker_close(NULL));

	EXPECT(-EINVAL, ioasd_ioas_alloc(agent, NULL));
	EXPECT(-EINVAL, ioasd_map_file(agent, ioas, file, 0, PAGE, 0, &iova));
	EXPECT(-EINVAL, ioasd_map_file(agent, ioas, file, 0, PAGE, 4, &iova));
	CODE("bad-argument");
	EXPECT(-EBADF, ioasd_map_file(agent, ioas, -1, 0, PAGE, IOASD_READ, &iova));
	EXPECT(-EBADF, ioasd_map_file(agent, ioas, 1000, 0, PAGE, IOASD_READ, &iova));
	EXPECT(-EINVAL, ioasd_unmap(agent, ioas, IOVA, 0, NULL));
	EXPECT(-EINVAL, ioasd_unmap(agent, ioas, UINT64_MAX, 2, NULL));
	EXPECT(-ENOENT, ioasd_unmap(agent, ioas, IOVA + 64 * PAGE, PAGE, NULL));
	EXPECT(-ENOENT, ioasd_destroy(agent, 4711));
	EXPECT(-EINVAL, ioasd_device_create(agent, 99, 0, &device));
	EXPECT(-EINVAL, ioasd_device_create(agent, IOASD_FORMAT_AMD_V1, 2, &device));
	EXPECT(-EINVAL, ioasd_access_read(agent, 1, 0, NULL, 1));
	EXPECT(-EBADF, ioasd_walker_open(-1, &walker));
	EXPECT(-ENOTSOCK, ioasd_walker_open(file, &walker));
}

static void not_in_a_burst(void)
{
	struct ioasd_memory memory;
	struct ioasd_rest rest = { IOVA, 1 };
	uint64_t word;

	EXPECT(-EINVAL, ioasd_enter(NULL));
	EXPECT(-EINVAL, ioasd_translate(NULL, IOVA, 1, IOASD_READ, &memory));
	EXPECT(-EBADFD, ioasd_leave(stream));
	EXPECT(-EBADFD, ioasd_translate(stream, IOVA, 1, IOASD_READ, &memory));
	CODE("not-in-burst");
	EXPECT(-EBADFD, ioasd_translate_next(stream, &rest, IOASD_READ, &memory));
	EXPECT(-EBADFD, ioasd_read(stream, IOVA, &word, 8));
	EXPECT(-EBADFD, ioasd_write(stream, IOVA, &word, 8));
	EXPECT(-EBADFD, ioasd_load_u64(stream, IOVA, &word));
	EXPECT(-EBADFD, ioasd_store_u16(stream, IOVA, 1));
	EXPECT(-EINVAL, ioasd_learn(stream));
	CODE("nothing-to-learn");
}

static void faults(void)
{
	struct ioasd_walk_fault fault;
	struct ioasd_memory memory;
	uint32_t word;

	EXPECT(0, ioasd_enter(stream));
	EXPECT(-ENODATA, ioasd_stream_fault(stream, &fault));
	EXPECT(-EINVAL, ioasd_translate(stream, IOVA, 1, IOASD_READ | IOASD_WRITE, &memory));
	EXPECT(-EINVAL, ioasd_translate(stream, IOVA, 1, IOASD_READ, NULL));
	EXPECT(-EINVAL, ioasd_load_u32(stream, IOVA + 2, &word));
	CODE("misaligned");
	EXPECT(-ENODATA, ioasd_stream_fault(stream, &fault));
	EXPECT(-EFAULT, ioasd_translate(stream, IOVA + PAGE, 1, IOASD_READ, &memory));
	CODE("fault-not-present");
	EXPECT(0, ioasd_stream_fault(stream, &fault));
	HOLDS(fault.iova == IOVA + PAGE && fault.kind == IOASD_FAULT_NOT_PRESENT && fault.level < 4);
	EXPECT(-EFAULT, ioasd_store_u32(stream, IOVA, 1));
	EXPECT(0, ioasd_stream_fault(stream, &fault));
	HOLDS(fault.iova == IOVA && fault.kind == IOASD_FAULT_PERMISSION && fault.entry);
	EXPECT(-EFAULT, ioasd_translate(stream, UINT64_MAX, 1, IOASD_READ, &memory));
	CODE("fault-outside-aperture");
	EXPECT(0, ioasd_leave(stream));
}

static void *elsewhere(void *unused)
{
	struct ioasd_memory memory;
	uint32_t another;

	EXPECT(-EPERM, ioasd_translate(stream, IOVA, 1, IOASD_READ, &memory));
	CODE("other-thread");
	EXPECT(-EPERM, ioasd_enter(stream));
	EXPECT(-EPERM, ioasd_leave(stream));
	EXPECT(-EPERM, ioasd_stream_close(stream));
	EXPECT(0, ioasd_ioas_alloc(agent, &another));
	EXPECT(0, ioasd_destroy(agent, another));
	return unused;
}

static void in_a_child(void)
{
	struct ioasd_memory memory;
	int status;
	pid_t child = fork();

	if (!child) {
		EXPECT(-EPERM, ioasd_translate(stream, IOVA, 1, IOASD_READ, &memory));
		EXPECT(-EPERM, ioasd_leave(stream));
		EXPECT(-EPERM, ioasd_enter(stream));
		EXPECT(-EPERM, ioasd_stream_close(stream));
		_exit(0);
	}
	HOLDS(waitpid(child, &status, 0) == child && !status);
}

static void in_a_burst(void)
{
	struct ioasd_walker *second;
	struct ioasd_memory memory;
	pthread_t thread;

	EXPECT(0, ioasd_enter(stream));
	EXPECT(-EBUSY, ioasd_enter(stream));
	CODE("in-burst");
	EXPECT(-EDEADLK, ioasd_unmap(agent, ioas, IOVA, PAGE, NULL));
	CODE("would-deadlock");
	EXPECT(-EDEADLK, ioasd_learn(stream));
	EXPECT(-EDEADLK, ioasd_walker_open(channel, &second));
	HOLDS(!pthread_create(&thread, NULL, elsewhere, NULL) && !pthread_join(thread, NULL));
	in_a_child();
	EXPECT(0, ioasd_translate(stream, IOVA, 1, IOASD_READ, &memory));
	HOLDS(*(unsigned char *)memory.address == 1);
	EXPECT(0, ioasd_leave(stream));
	EXPECT(-EBADFD, ioasd_leave(stream));
}

static void too_many(void)
{
	struct ioasd_stream *streams[64], *more;
	int opened = 0;

	while (opened < 63)
		EXPECT(0, ioasd_stream_open(walker, 0, &streams[opened++]));
	EXPECT(-EMFILE, ioasd_stream_open(walker, 0, &more));
	CODE("no-slot");
	while (opened > 0)
		EXPECT(0, ioasd_stream_close(streams[--opened]));
	EXPECT(-EINVAL, ioasd_stream_open(walker, 2, &more));
}

static void gone(void)
{
	struct ioasd_memory memory;

	EXPECT(0, ioasd_walker_close(walker));
	EXPECT(-EBADF, ioasd_stream_open(walker, 0, &stream));
	EXPECT(0, ioasd_device_detach(agent, device));
	EXPECT(0, ioasd_enter(stream));
	EXPECT(-ENODEV, ioasd_translate(stream, IOVA, 1, IOASD_READ, &memory));
	CODE("fault-dead");
	EXPECT(0, ioasd_stream_close(stream));
	EXPECT(-EBADF, ioasd_stream_close(stream));
	EXPECT(-EBADF, ioasd_enter(stream));
	EXPECT(-EBADF, ioasd_leave(stream));
	EXPECT(-EBADF, ioasd_translate(stream, IOVA, 1, IOASD_READ, &memory));
	CODE("not-open");
	EXPECT(0, ioasd_unmap(agent, ioas, IOVA, PAGE, NULL));
}

int main(int argc, char **argv)
{
	HOLDS(argc == 2 && !*ioasd_error_text() && !*ioasd_error_code());
	path = argv[1];
	new_memory(1, &file);
	EXPECT(0, ioasd_connect(path, &agent));
	EXPECT(0, ioasd_ioas_alloc(agent, &ioas));
	arguments();
	EXPECT(0, ioasd_device_create(agent, IOASD_FORMAT_AMD_V1, IOASD_DEVICE_OWN_IOMMU, &device));
	EXPECT(0, ioasd_device_attach(agent, device, ioas, &hwpt));
	EXPECT(0, ioasd_map_file_at(agent, ioas, file, 0, PAGE, IOASD_READ, IOVA));
	EXPECT(-EEXIST, ioasd_map_file_at(agent, ioas, file, 0, PAGE, IOASD_READ, IOVA));
	EXPECT(0, ioasd_domain_export(agent, hwpt, &channel));
	EXPECT(0, ioasd_walker_open(channel, &walker));
	EXPECT(0, ioasd_stream_open(walker, IOASD_STREAM_IOTLB, &stream));
	not_in_a_burst();
	faults();
	in_a_burst();
	too_many();
	gone();
	EXPECT(0, ioasd_close(agent));
	puts("all as expected");
	return 0;
}
