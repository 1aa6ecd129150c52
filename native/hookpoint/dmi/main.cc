// ring2-dmi-bridge: a DMI deployment takes this program for its ClickHouse. One line of JSON on
// standard output when it listens, another with all counts when it ends; everything else on
// standard error.

#include <arpa/inet.h>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <netdb.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "server.h"

using namespace ring2::dmi;

namespace {

int stop_fd = -1;

constexpr char kUsage[] =
    "usage: ring2-dmi-bridge [--listen HOST:PORT] [--segment NAME] [--directory DIR]\n"
    "                        [--payload-mb N] [--connections N] [--settle-ms N] [--idle-ms N]\n"
    "                        [--tee HOST:PORT] [--tee-wait-ms N] [--tee-buffer-mb N]\n";

struct Options {
  std::string listen = "127.0.0.1:9000";
  std::string tee;
  LedgerOptions ledger;
  TeeOptions tee_options;
  uint64_t connections = 256;
};

[[noreturn]] void refuse(const std::string &text) {
  log_line(text);
  std::fputs(kUsage, stderr);
  std::exit(2);
}

uint64_t number(const std::string &name, const std::string &text, uint64_t most) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value > most) {
    refuse(name + " is '" + text + "'; expected a number up to " + std::to_string(most));
  }
  return value;
}

sockaddr_in address(const std::string &name, const std::string &text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) refuse(name + " is '" + text + "'; expected HOST:PORT");
  addrinfo hints = {};
  hints.ai_family = AF_INET;
  hints.ai_socktype = SOCK_STREAM;
  addrinfo *found = nullptr;
  const std::string host = text.substr(0, colon), port = text.substr(colon + 1);
  const int fault = getaddrinfo(host.c_str(), port.c_str(), &hints, &found);
  if (fault != 0) refuse(name + " '" + text + "': " + gai_strerror(fault));
  sockaddr_in result;
  std::memcpy(&result, found->ai_addr, sizeof result);
  freeaddrinfo(found);
  return result;
}

Options read_options(int count, char **words) {
  constexpr uint64_t kMost = 1 << 20;
  Options options;
  for (int i = 1; i < count; i += 2) {
    const std::string name = words[i];
    if (name == "--help") {
      std::fputs(kUsage, stdout);
      std::exit(0);
    }
    if (i + 1 == count) refuse(name + " without a value");
    const std::string value = words[i + 1];
    LedgerOptions &ledger = options.ledger;
    TeeOptions &tee = options.tee_options;
    const auto within = [&](uint64_t most) { return number(name, value, most); };
    if (name == "--listen") options.listen = value;
    else if (name == "--tee") options.tee = value;
    else if (name == "--segment") ledger.segment = value;
    else if (name == "--directory") ledger.directory = value;
    else if (name == "--payload-mb") ledger.payload_bytes = within(kMost) << 20;
    else if (name == "--connections") options.connections = within(4096);
    else if (name == "--settle-ms") ledger.settle_ns = within(kMost) * kMillisecond;
    else if (name == "--idle-ms") ledger.idle_ns = within(1 << 30) * kMillisecond;
    else if (name == "--tee-wait-ms") tee.wait_ns = within(kMost) * kMillisecond;
    else if (name == "--tee-buffer-mb") tee.buffer_bytes = within(4096) << 20;
    else refuse("unknown option " + name);
  }
  return options;
}

void stop(int) {
  const uint64_t one = 1;
  // Nothing can be done about a failure here, in a signal handler.
  if (write(stop_fd, &one, sizeof one) < 0) return;
}

void catch_signals() {
  struct sigaction action = {};
  action.sa_handler = stop;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
}

}  // namespace

int main(int count, char **words) {
  Options options = read_options(count, words);
  if (!options.tee.empty()) options.tee_options.address = address("--tee", options.tee);
  const sockaddr_in listen = address("--listen", options.listen);
  stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  catch_signals();
  Counts counts;
  Budget budget(kHeapBytesMax);
  Tables tables;
  TeeHealth tee_health;
  Ledger ledger(options.ledger, counts, budget);
  Shared shared{ledger, counts, budget, tables, options.tee_options, tee_health, stop_fd};
  Server server(shared, options.connections, options.ledger.settle_ns);
  std::string fault = server.listen_on(listen);
  if (fault.empty()) fault = ledger.open();
  if (!fault.empty()) {
    log_line(fault);
    return 1;
  }
  char host[INET_ADDRSTRLEN] = "";
  inet_ntop(AF_INET, &listen.sin_addr, host, sizeof host);
  std::printf("{\"listening\": \"%s:%u\", \"segment\": %s}\n", host, unsigned{server.port()},
              json_text(options.ledger.segment).c_str());
  std::fflush(stdout);
  server.run();
  std::printf("%s\n", counts.json().c_str());
  return 0;
}
