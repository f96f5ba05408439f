/* Every call, used as it is meant. */
#include "check.h"

static struct ioasd_connection *agent;
static uint32_t ioas;
static const uint64_t FIRST = 0x100000, SECOND = 0x200000;

static void about_itself(void)
{
	HOLDS(ioasd_abi() == IOASD_ABI && strchr(ioasd_version(), '.'));
}

static int socket_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int connected = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
	HOLDS(!connect(connected, (struct sockaddr *)&address, sizeof(address)));
	return connected;
}

static void connections(const char *path)
{
	struct ioasd_connection *taken_over, *further;
	int connected = socket_to(path), left;
	uint32_t number;

	EXPECT(0, ioasd_connect_fd(connected, &taken_over));
	HOLDS(!close(connected));
	left = ioasd_connection_fd(taken_over);
	HOLDS(left >= 0 && poll(&(struct pollfd){ .fd = left, .events = POLLIN }, 1, 0) == 0);
	EXPECT(0, ioasd_channel_open(taken_over, &further));
	EXPECT(0, ioasd_ioas_alloc(further, &number));
	EXPECT(0, ioasd_destroy(taken_over, number));
	EXPECT(0, ioasd_close(taken_over));
	EXPECT(-ECONNRESET, ioasd_ioas_alloc(further, &number));
	CODE("hung-up");
	EXPECT(0, ioasd_close(further));
}

static void words(struct ioasd_stream *stream, unsigned char *memory)
{
	uint16_t half = 0;
	uint32_t word = 0;
	uint64_t twice = 0;

	EXPECT(0, ioasd_store_u64(stream, FIRST + 8, 0x1122334455667788));
	EXPECT(0, ioasd_load_u64(stream, FIRST + 8, &twice));
	EXPECT(0, ioasd_load_u32(stream, FIRST + 8, &word));
	EXPECT(0, ioasd_load_u16(stream, FIRST + 8, &half));
	HOLDS(twice == 0x1122334455667788 && !memcmp(memory + 8, &twice, 8));
	HOLDS(!memcmp(memory + 8, &word, 4) && !memcmp(memory + 8, &half, 2));
	EXPECT(0, ioasd_store_u32(stream, FIRST + 12, 1));
	EXPECT(0, ioasd_store_u16(stream, FIRST + 10, 2));
	HOLDS(*(uint32_t *)(void *)(memory + 12) == 1 && *(uint16_t *)(void *)(memory + 10) == 2);
	memset(memory, 1, PAGE);
}

/* Two pages that lie the other way round in the file: two pieces. */
static void pieces(struct ioasd_stream *stream, const unsigned char *memory)
{
	struct ioasd_rest rest = { FIRST + PAGE - 4, 8 };
	struct ioasd_memory piece;
	unsigned char bytes[8], fours[4] = { 2, 2, 2, 2 };

	EXPECT(1, ioasd_translate_next(stream, &rest, IOASD_READ, &piece));
	HOLDS(piece.length == 4 && !memcmp(piece.address, memory + PAGE - 4, 4));
	HOLDS(piece.permission == (IOASD_READ | IOASD_WRITE));
	EXPECT(1, ioasd_translate_next(stream, &rest, IOASD_WRITE, &piece));
	HOLDS(piece.length == 4 && *(unsigned char *)piece.address == 3);
	EXPECT(0, ioasd_translate_next(stream, &rest, IOASD_READ, &piece));
	EXPECT(0, ioasd_read(stream, FIRST + PAGE - 4, bytes, 8));
	HOLDS(!memcmp(bytes, "\1\1\1\1\3\3\3\3", 8));
	EXPECT(0, ioasd_write(stream, FIRST + PAGE - 2, fours, 4));
	HOLDS(memory[PAGE - 3] == 1 && memory[PAGE - 2] == 2 && memory[2 * PAGE + 1] == 2 && memory[2 * PAGE + 2] == 3);
	EXPECT(0, ioasd_translate(stream, FIRST, 5, IOASD_READ, &piece));
	HOLDS(piece.length == 5);
	EXPECT(-EFAULT, ioasd_read(stream, FIRST + 2 * PAGE - 4, bytes, 8));
}

/* A file that was mapped after the walker opened the domain. */
static void learning(struct ioasd_stream *stream)
{
	unsigned char byte = 0;
	int later, error, learned = 0;

	new_memory(1, &later);
	EXPECT(0, ioasd_map_file_at(agent, ioas, later, 0, PAGE, IOASD_READ, SECOND));
	do {
		EXPECT(0, ioasd_enter(stream));
		error = ioasd_read(stream, SECOND, &byte, 1);
		EXPECT(0, ioasd_leave(stream));
	} while (error == -EAGAIN && ++learned && !(error = ioasd_learn(stream)));
	HOLDS(!error && learned == 1 && byte == 1);
	EXPECT(0, ioasd_unmap(agent, ioas, SECOND, PAGE, NULL));
	HOLDS(!close(later));
}

/* A file that is gone again when the agent is asked about it: the next burst finds out by itself. */
static void too_late_to_learn(struct ioasd_stream *stream)
{
	unsigned char byte;
	int file;

	new_memory(1, &file);
	EXPECT(0, ioasd_map_file_at(agent, ioas, file, 0, PAGE, IOASD_READ, SECOND));
	EXPECT(0, ioasd_enter(stream));
	EXPECT(-EAGAIN, ioasd_read(stream, SECOND, &byte, 1));
	EXPECT(0, ioasd_leave(stream));
	EXPECT(0, ioasd_unmap(agent, ioas, SECOND, PAGE, NULL));
	EXPECT(0, ioasd_learn(stream));
	EXPECT(-EINVAL, ioasd_learn(stream));
	EXPECT(0, ioasd_enter(stream));
	EXPECT(-EFAULT, ioasd_read(stream, SECOND, &byte, 1));
	EXPECT(0, ioasd_leave(stream));
	HOLDS(!close(file));
}

/* A file that can shrink is not one that walkers are given. */
static void not_for_walkers(struct ioasd_stream *stream)
{
	int can_shrink = memfd_create("can shrink", MFD_CLOEXEC);
	unsigned char byte = 0;

	HOLDS(write(can_shrink, &byte, 1) == 1 && !ftruncate(can_shrink, PAGE));
	EXPECT(0, ioasd_map_file_at(agent, ioas, can_shrink, 0, PAGE, IOASD_READ, SECOND));
	EXPECT(0, ioasd_enter(stream));
	EXPECT(-EAGAIN, ioasd_read(stream, SECOND, &byte, 1));
	EXPECT(0, ioasd_leave(stream));
	EXPECT(-EPERM, ioasd_learn(stream));
	EXPECT(0, ioasd_unmap(agent, ioas, SECOND, PAGE, NULL));
	HOLDS(!close(can_shrink));
}

static void walking(void)
{
	uint32_t device, hwpt, other, now;
	struct ioasd_walker *walker;
	struct ioasd_stream *stream;
	uint64_t unmapped = 0;
	unsigned char *memory;
	int file, channel;

	memory = new_memory(3, &file);
	EXPECT(0, ioasd_device_create(agent, IOASD_FORMAT_VTD_SS, 0, &device));
	EXPECT(0, ioasd_device_attach(agent, device, ioas, &hwpt));
	EXPECT(0, ioasd_map_file_at(agent, ioas, file, 0, PAGE, IOASD_READ | IOASD_WRITE, FIRST));
	EXPECT(0, ioasd_map_file_at(agent, ioas, file, 2 * PAGE, PAGE, IOASD_READ | IOASD_WRITE, FIRST + PAGE));
	EXPECT(0, ioasd_domain_export(agent, hwpt, &channel));
	EXPECT(0, ioasd_walker_open(channel, &walker));
	HOLDS(!close(channel));
	EXPECT(0, ioasd_stream_open(walker, 0, &stream));
	EXPECT(0, ioasd_enter(stream));
	words(stream, memory);
	pieces(stream, memory);
	EXPECT(0, ioasd_leave(stream));
	learning(stream);
	too_late_to_learn(stream);
	not_for_walkers(stream);
	EXPECT(0, ioasd_stream_close(stream));
	EXPECT(0, ioasd_walker_close(walker));
	EXPECT(0, ioasd_ioas_alloc(agent, &other));
	EXPECT(0, ioasd_device_replace(agent, device, other, &now));
	HOLDS(now != hwpt);
	EXPECT(0, ioasd_device_detach(agent, device));
	EXPECT(0, ioasd_destroy(agent, device));
	EXPECT(0, ioasd_unmap_all(agent, ioas, &unmapped));
	HOLDS(unmapped == 2 * PAGE && !close(file));
	EXPECT(0, ioasd_destroy(agent, other));
}

static void copying(void)
{
	uint64_t iova, copied;
	unsigned char byte = 0;
	uint32_t other, access;
	int file;

	new_memory(2, &file);
	EXPECT(0, ioasd_ioas_alloc(agent, &other));
	EXPECT(0, ioasd_map_file(agent, ioas, file, 0, 2 * PAGE, IOASD_READ, &iova));
	EXPECT(0, ioasd_copy(agent, ioas, iova, 2 * PAGE, other, IOASD_READ, &copied));
	EXPECT(0, ioasd_copy_at(agent, ioas, iova, 2 * PAGE, other, IOASD_READ, copied + 16 * PAGE));
	EXPECT(-EPERM, ioasd_copy(agent, ioas, iova, 2 * PAGE, other, IOASD_WRITE, &copied));
	EXPECT(0, ioasd_access_create(agent, other, 0, &access));
	EXPECT(0, ioasd_access_read(agent, access, copied + 17 * PAGE, &byte, 1));
	HOLDS(byte == 2);
	EXPECT(0, ioasd_destroy(agent, access));
	EXPECT(0, ioasd_destroy(agent, other));
	EXPECT(0, ioasd_unmap(agent, ioas, iova, 2 * PAGE, NULL));
	HOLDS(!close(file));
}

static void *unmap_on_a_channel(void *channel)
{
	uint64_t unmapped;

	EXPECT(0, ioasd_unmap(channel, ioas, FIRST, PAGE, &unmapped));
	HOLDS(unmapped == PAGE);
	return NULL;
}

static void letting_go(void)
{
	struct ioasd_connection *channel;
	struct ioasd_notices *notices;
	struct ioasd_notice notice;
	unsigned char *memory;
	uint32_t access;
	pthread_t thread;
	int file;

	memory = new_memory(1, &file);
	EXPECT(0, ioasd_map_file_at(agent, ioas, file, 0, PAGE, IOASD_READ | IOASD_WRITE, FIRST));
	EXPECT(0, ioasd_access_create_with_notices(agent, ioas, IOASD_ACCESS_MAY_PIN, &access, &notices));
	EXPECT(0, ioasd_access_pin(agent, access, FIRST, PAGE, IOASD_WRITE));
	EXPECT(0, ioasd_access_write(agent, access, FIRST + 5, "bytes", 5));
	HOLDS(!memcmp(memory + 5, "bytes", 5));
	EXPECT(-EAGAIN, ioasd_notices_receive(notices, 0, &notice));
	EXPECT(0, ioasd_channel_open(agent, &channel));
	HOLDS(!pthread_create(&thread, NULL, unmap_on_a_channel, channel));
	HOLDS(poll(&(struct pollfd){ .fd = ioasd_notices_fd(notices), .events = POLLIN }, 1, -1) == 1);
	EXPECT(0, ioasd_notices_receive(notices, IOASD_NOTICES_WAIT, &notice));
	HOLDS(notice.access == access && notice.iova == FIRST && notice.last == FIRST + PAGE - 1);
	EXPECT(0, ioasd_access_unpin(agent, access, FIRST, PAGE));
	EXPECT(0, ioasd_notices_acknowledge(notices, &notice));
	HOLDS(!pthread_join(thread, NULL));
	EXPECT(0, ioasd_destroy(agent, access));
	EXPECT(-ECONNRESET, ioasd_notices_receive(notices, IOASD_NOTICES_WAIT, &notice));
	EXPECT(0, ioasd_notices_close(notices));
	EXPECT(0, ioasd_close(channel));
	HOLDS(!close(file));
}

int main(int argc, char **argv)
{
	HOLDS(argc == 2);
	about_itself();
	connections(argv[1]);
	EXPECT(0, ioasd_connect(argv[1], &agent));
	EXPECT(0, ioasd_ioas_alloc(agent, &ioas));
	walking();
	copying();
	letting_go();
	EXPECT(0, ioasd_destroy(agent, ioas));
	EXPECT(0, ioasd_close(agent));
	puts("all as expected");
	return 0;
}
