#include "segment.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "control.h"
#include "error.h"

namespace ring2 {

namespace {

bool name_is_valid(const char *name) {
  if (name == nullptr) return false;
  const size_t length = std::strlen(name);
  if (length == 0 || length >= RING2_NAME_BYTES || name[0] == '.') return false;
  for (const char *c = name; *c != '\0'; ++c) {
    const bool letter = (*c >= 'A' && *c <= 'Z') || (*c >= 'a' && *c <= 'z');
    const bool digit = *c >= '0' && *c <= '9';
    if (!letter && !digit && *c != '.' && *c != '_' && *c != '-') return false;
  }
  return true;
}

uint32_t default_meta_slots(uint64_t payload_bytes) {
  // One descriptor for every 4 KiB of payload: activations of small models are of that order.
  uint32_t slots = kMetaSlotsMin;
  while (slots < kMetaSlotsMax && uint64_t{slots} * 4096 < payload_bytes) slots *= 2;
  return slots < 4096 ? 4096 : slots;
}

int map(Segment *segment, int protection) {
  void *base = mmap(nullptr, segment->mapped_bytes, protection, MAP_SHARED, segment->file, 0);
  if (base == MAP_FAILED) {
    return ring2_set_error(RING2_E_SYSTEM, "mmap of %s (%llu bytes): %s", segment->path.c_str(),
                           static_cast<unsigned long long>(segment->mapped_bytes),
                           std::strerror(errno));
  }
  segment->base = static_cast<uint8_t *>(base);
  segment->header = reinterpret_cast<ring2_header *>(segment->base);
  return RING2_OK;
}

bool has_consumer(const ring2_header &header) {
  const uint32_t pid = load_relaxed(header.consumer_pid);
  return pid != 0 && process_start_ticks(pid) == load_relaxed(header.consumer_start_ticks);
}

// Removes the leftovers of one name, adding to `lost` what nobody is draining any more.
void remove_leftovers(const std::string &path, ring2_loss_count *lost) {
  const size_t slash = path.rfind('/');
  const std::string directory = path.substr(0, slash);
  const std::string prefix = path.substr(slash + 1) + "~";
  DIR *entries = opendir(directory.c_str());
  if (entries == nullptr) return;
  while (const dirent *entry = readdir(entries)) {
    if (std::strncmp(entry->d_name, prefix.c_str(), prefix.size()) != 0) continue;
    const std::string leftover = directory + "/" + entry->d_name;
    Segment old;
    if (segment_open(leftover.c_str(), false, &old) == RING2_OK) {
      if (!has_consumer(*old.header)) {
        lost->records += load_relaxed(old.header->meta_head) - load_relaxed(old.header->meta_tail);
        lost->bytes +=
            load_relaxed(old.header->payload_head) - load_relaxed(old.header->payload_tail);
      }
      segment_unmap(&old);
    }
    unlink(leftover.c_str());
  }
  closedir(entries);
}

// A name is free, held by a live producer, or held by a leftover. A leftover may still hold data
// that no exporter has seen, so it is moved aside, not removed; an older one in that place goes, so
// that a producer that restarts again and again does not fill the memory. What goes is counted.
int make_way(const std::string &path, ring2_loss_count *lost) {
  Segment old;
  const int opened = segment_open(path.c_str(), false, &old);
  if (opened != RING2_OK) {
    struct stat status;
    if (stat(path.c_str(), &status) != 0) return RING2_OK;
    return ring2_set_error(RING2_E_NAME_TAKEN,
                           "%s exists and is no readable segment; expected a free name. %s",
                           path.c_str(), ring2_last_error());
  }
  if (load_acquire(old.header->producer_closed) == 0 && producer_alive(*old.header)) {
    const uint32_t pid = old.header->producer_pid;
    segment_unmap(&old);
    return ring2_set_error(RING2_E_NAME_TAKEN, "%s belongs to live process %u; expected a free name",
                           path.c_str(), pid);
  }
  char suffix[32];
  std::snprintf(suffix, sizeof suffix, "~%016llx",
                static_cast<unsigned long long>(old.header->boot));
  segment_unmap(&old);
  remove_leftovers(path, lost);
  if (rename(path.c_str(), (path + suffix).c_str()) != 0 && errno != ENOENT) {
    return ring2_set_error(RING2_E_SYSTEM, "rename of leftover %s: %s", path.c_str(),
                           std::strerror(errno));
  }
  return RING2_OK;
}

void fill_header(const ring2_producer_options &options, Segment *segment) {
  ring2_header *header = segment->header;
  header->version = RING2_LAYOUT_VERSION;
  header->header_bytes = RING2_HEADER_BYTES;
  header->meta_offset = RING2_HEADER_BYTES;
  header->meta_slots = segment->meta_slots;
  header->meta_slot_bytes = sizeof(ring2_descriptor);
  header->payload_offset = header->meta_offset + segment->meta_slots * sizeof(ring2_descriptor);
  header->payload_bytes = segment->payload_bytes;
  do {
    if (getrandom(&header->boot, sizeof header->boot, 0) != sizeof header->boot) {
      header->boot = clock_ns(CLOCK_REALTIME) ^ (uint64_t{static_cast<uint32_t>(getpid())} << 40);
    }
  } while (header->boot == 0);
  header->producer_pid = static_cast<uint32_t>(getpid());
  header->producer_start_ticks = process_start_ticks(header->producer_pid);
  header->producer_pid_namespace = pid_namespace();
  header->anchor_monotonic_ns = clock_ns(CLOCK_MONOTONIC);
  header->anchor_realtime_ns = clock_ns(CLOCK_REALTIME);
  header->producer_heartbeat_ns = header->anchor_monotonic_ns;
  std::snprintf(header->name, sizeof header->name, "%s", options.name);
  create_control(header);
  header->magic = RING2_MAGIC;
}

// Everything that later code relies on, checked once against the size of the file.
const char *header_defect(const ring2_header &header, uint64_t file_bytes) {
  if (header.header_bytes != RING2_HEADER_BYTES) return "header_bytes";
  if (header.meta_slot_bytes != sizeof(ring2_descriptor)) return "meta_slot_bytes";
  if (header.meta_slots < kMetaSlotsMin || header.meta_slots > kMetaSlotsMax) return "meta_slots";
  if ((header.meta_slots & (header.meta_slots - 1)) != 0) return "meta_slots";
  if (header.meta_offset != RING2_HEADER_BYTES) return "meta_offset";
  if (header.payload_offset !=
      header.meta_offset + uint64_t{header.meta_slots} * sizeof(ring2_descriptor)) {
    return "payload_offset";
  }
  if (header.payload_bytes < kPayloadBytesMin || header.payload_bytes > kPayloadBytesMax) {
    return "payload_bytes";
  }
  if (header.payload_bytes % kPageBytes != 0) return "payload_bytes";
  if (file_bytes != header.payload_offset + header.payload_bytes) return "file size";
  if (header.boot == 0) return "boot";
  if (memchr(header.name, '\0', sizeof header.name) == nullptr) return "name";
  return nullptr;
}

// Needs meta_slots: the sizes are never read again from the shared header.
void set_pointers(Segment *segment) {
  segment->descriptors = reinterpret_cast<ring2_descriptor *>(segment->base + RING2_HEADER_BYTES);
  segment->payload = segment->base + RING2_HEADER_BYTES +
                     uint64_t{segment->meta_slots} * sizeof(ring2_descriptor);
}

int check_options(const ring2_producer_options &options) {
  if (!name_is_valid(options.name)) {
    return ring2_set_error(RING2_E_ARGUMENT,
                           "segment name '%s'; expected 1 to 63 of [A-Za-z0-9._-], not starting "
                           "with a dot",
                           options.name == nullptr ? "(null)" : options.name);
  }
  if (options.payload_bytes < kPayloadBytesMin || options.payload_bytes > kPayloadBytesMax) {
    return ring2_set_error(RING2_E_ARGUMENT, "payload_bytes %llu; expected %llu to %llu",
                           static_cast<unsigned long long>(options.payload_bytes),
                           static_cast<unsigned long long>(kPayloadBytesMin),
                           static_cast<unsigned long long>(kPayloadBytesMax));
  }
  const uint32_t slots = options.meta_slots;
  if (slots != 0 && (slots < kMetaSlotsMin || slots > kMetaSlotsMax || (slots & (slots - 1)) != 0)) {
    return ring2_set_error(RING2_E_ARGUMENT,
                           "meta_slots %u; expected a power of two from %u to %u, or 0", slots,
                           kMetaSlotsMin, kMetaSlotsMax);
  }
  if (options.when_full > RING2_WHEN_FULL_BLOCK) {
    return ring2_set_error(RING2_E_ARGUMENT, "when_full %u; expected 0 (drop) or 1 (block)",
                           options.when_full);
  }
  return RING2_OK;
}

}  // namespace

uint64_t clock_ns(int clock) {
  timespec now;
  clock_gettime(clock, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1000000000u + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t process_start_ticks(uint32_t pid) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%u/stat", pid);
  const int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return 0;
  char text[1024];
  const ssize_t length = read(file, text, sizeof text - 1);
  close(file);
  if (length <= 0) return 0;
  text[length] = '\0';
  // The command name (field 2) may hold blanks and parentheses: count fields after the last ')'.
  const char *cursor = std::strrchr(text, ')');
  if (cursor == nullptr || cursor[1] == '\0') return 0;
  const char state = cursor[2];
  if (state == 'Z' || state == 'X') return 0;
  cursor += 1;
  for (int field = 2; field < 21 && cursor != nullptr; ++field) {
    cursor = std::strchr(cursor + 1, ' ');
  }
  unsigned long long ticks = 0;
  if (cursor == nullptr || std::sscanf(cursor, " %llu", &ticks) != 1) return 0;
  return ticks;
}

uint64_t pid_namespace() {
  struct stat status;
  return stat("/proc/self/ns/pid", &status) == 0 ? static_cast<uint64_t>(status.st_ino) : 0;
}

bool producer_alive(const ring2_header &header) {
  if (header.producer_pid_namespace == pid_namespace()) {
    const uint64_t ticks = process_start_ticks(header.producer_pid);
    return ticks != 0 && ticks == header.producer_start_ticks;
  }
  // Its pid means another process here, or none: only its heartbeat tells.
  const uint64_t beat = load_relaxed(header.producer_heartbeat_ns);
  const uint64_t now = clock_ns(CLOCK_MONOTONIC);
  return now < beat || now - beat < kHeartbeatStaleNs;
}

int segment_create(const ring2_producer_options &options, Segment *out) {
  const int checked = check_options(options);
  if (checked != RING2_OK) return checked;
  const char *directory = options.directory == nullptr ? kDefaultDirectory : options.directory;
  Segment segment;
  segment.path = std::string(directory) + "/" + kFilePrefix + options.name;
  segment.payload_bytes = (options.payload_bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  segment.meta_slots =
      options.meta_slots != 0 ? options.meta_slots : default_meta_slots(segment.payload_bytes);
  segment.mapped_bytes = RING2_HEADER_BYTES +
                         uint64_t{segment.meta_slots} * sizeof(ring2_descriptor) +
                         segment.payload_bytes;

  ring2_loss_count leftover = {};
  const int way = make_way(segment.path, &leftover);
  if (way != RING2_OK) return way;
  segment.file = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (segment.file < 0) {
    return ring2_set_error(RING2_E_SYSTEM, "creating a file in %s: %s", directory,
                           std::strerror(errno));
  }
  int result = RING2_OK;
  // Reserves the memory now: a full /dev/shm is an error here, and not a SIGBUS in mid-forward.
  const int reserved = posix_fallocate(segment.file, 0, static_cast<off_t>(segment.mapped_bytes));
  if (reserved != 0) {
    result = ring2_set_error(RING2_E_SYSTEM, "reserving %llu bytes for %s: %s",
                             static_cast<unsigned long long>(segment.mapped_bytes),
                             segment.path.c_str(), std::strerror(reserved));
  }
  if (result == RING2_OK) result = map(&segment, PROT_READ | PROT_WRITE);
  if (result == RING2_OK) {
    fill_header(options, &segment);
    segment.header->producer_losses[RING2_LOSS_LEFTOVER] = leftover;
    set_pointers(&segment);
    char descriptor_path[64];
    std::snprintf(descriptor_path, sizeof descriptor_path, "/proc/self/fd/%d", segment.file);
    if (linkat(AT_FDCWD, descriptor_path, AT_FDCWD, segment.path.c_str(), AT_SYMLINK_FOLLOW) != 0) {
      const int id = errno == EEXIST ? RING2_E_NAME_TAKEN : RING2_E_SYSTEM;
      result = ring2_set_error(id, "linking %s: %s", segment.path.c_str(), std::strerror(errno));
    }
  }
  if (result != RING2_OK) {
    segment_unmap(&segment);
    return result;
  }
  *out = segment;
  return RING2_OK;
}

int segment_open(const char *path, bool writable, Segment *out) {
  Segment segment;
  segment.path = path;
  segment.file = open(path, (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NOFOLLOW);
  if (segment.file < 0) {
    return ring2_set_error(RING2_E_SYSTEM, "opening %s: %s", path, std::strerror(errno));
  }
  struct stat status;
  if (fstat(segment.file, &status) != 0 || !S_ISREG(status.st_mode) ||
      static_cast<uint64_t>(status.st_size) < RING2_HEADER_BYTES) {
    segment_unmap(&segment);
    return ring2_set_error(RING2_E_NOT_A_SEGMENT, "%s: expected a regular file of at least %u bytes",
                           path, RING2_HEADER_BYTES);
  }
  segment.mapped_bytes = static_cast<uint64_t>(status.st_size);
  const int mapped = map(&segment, writable ? PROT_READ | PROT_WRITE : PROT_READ);
  if (mapped != RING2_OK) {
    segment_unmap(&segment);
    return mapped;
  }
  // Validate a private copy: the file belongs to another process.
  ring2_header header;
  std::memcpy(&header, segment.header, sizeof header);
  int result = RING2_OK;
  if (header.magic != RING2_MAGIC) {
    result = ring2_set_error(RING2_E_NOT_A_SEGMENT, "%s: magic %016llx; expected %016llx", path,
                             static_cast<unsigned long long>(header.magic),
                             static_cast<unsigned long long>(RING2_MAGIC));
  } else if (header.version != RING2_LAYOUT_VERSION) {
    result = ring2_set_error(RING2_E_VERSION, "%s: layout version %u; expected %u", path,
                             header.version, RING2_LAYOUT_VERSION);
  } else if (const char *defect = header_defect(header, segment.mapped_bytes)) {
    result = ring2_set_error(RING2_E_NOT_A_SEGMENT, "%s: field %s contradicts the rest", path,
                             defect);
  }
  if (result != RING2_OK) {
    segment_unmap(&segment);
    return result;
  }
  segment.meta_slots = header.meta_slots;
  segment.payload_bytes = header.payload_bytes;
  set_pointers(&segment);
  *out = segment;
  return RING2_OK;
}

void segment_unlink(const Segment &segment) {
  struct stat mine;
  struct stat named;
  if (fstat(segment.file, &mine) != 0 || stat(segment.path.c_str(), &named) != 0) return;
  if (mine.st_ino == named.st_ino && mine.st_dev == named.st_dev) unlink(segment.path.c_str());
}

void segment_unmap(Segment *segment) {
  if (segment->base != nullptr) munmap(segment->base, segment->mapped_bytes);
  if (segment->file >= 0) close(segment->file);
  *segment = Segment{};
}

}  // namespace ring2
