// One line of words for each message, and one line of answer:
//
//   begin SLOT REQUEST_ID [TRACEPARENT]   what comes next in the slot is of this request
//   end SLOT                              the request of the slot is over
//
// The answer is `ok`, or `error` and what was expected. The answer comes when the words are in force.
#include "channel.h"

#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#include "engine.h"
#include "options.h"
#include "vocabulary.h"

namespace ring2_llama {

namespace {

constexpr size_t kClientsMax = 64;
constexpr size_t kLineBytesMax = 1024;  // a request id, a traceparent and the words around them
constexpr int kBeatMillis = 500;
// While texts of token ids are sent; and while they wait for a model's first step, or for room.
constexpr int kTextsMillis = 1;
constexpr int kTextsWaitMillis = 100;

struct Client {
  int socket;
  std::string line;
};

std::string answer(const std::string &line) {
  // The words go on as C strings, which would end there: another request would be named than was sent.
  if (line.find('\0') != std::string::npos) return "error expected a line without NUL characters\n";
  std::istringstream words(line);
  std::string verb, slot, id, traceparent, more;
  words >> verb >> slot >> id >> traceparent >> more;
  char *end = nullptr;
  const long number = std::strtol(slot.c_str(), &end, 10);
  const bool valid = !slot.empty() && *end == '\0' && number >= 0 && number < kSequencesMax;
  if (verb == "begin" && valid && more.empty()) {
    const char *wrong = register_request(static_cast<int32_t>(number), id.c_str(), traceparent.c_str());
    return wrong == nullptr ? "ok\n" : std::string("error ") + wrong + "\n";
  }
  if (verb == "end" && valid && id.empty()) {
    unregister_request(static_cast<int32_t>(number));
    return "ok\n";
  }
  return "error expected begin SLOT REQUEST_ID [TRACEPARENT] or end SLOT\n";
}

int listen_on(const std::string &path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof address.sun_path) {
    say("RING2_LLAMA_CONTROL: expected a path shorter than %zu bytes; no socket is made",
        sizeof address.sun_path);
    return -1;
  }
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  struct stat before{};
  if (lstat(path.c_str(), &before) == 0 && S_ISSOCK(before.st_mode)) unlink(path.c_str());
  const int made = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  // Whoever may name requests is whoever runs the engine.
  if (made >= 0 && bind(made, reinterpret_cast<sockaddr *>(&address), sizeof address) == 0 &&
      chmod(path.c_str(), S_IRUSR | S_IWUSR) == 0 && listen(made, static_cast<int>(kClientsMax)) == 0) {
    return made;
  }
  say("RING2_LLAMA_CONTROL: %s cannot be listened on: %s. Requests cannot be named, all else goes on",
      path.c_str(), std::strerror(errno));
  if (made >= 0) close(made);
  return -1;
}

// False when the client is gone, or sends no lines.
bool serve(Client &client) {
  char bytes[kLineBytesMax];
  const ssize_t count = recv(client.socket, bytes, sizeof bytes, 0);
  if (count < 0) return errno == EAGAIN || errno == EINTR;
  if (count == 0) return false;
  client.line.append(bytes, static_cast<size_t>(count));
  for (size_t end = client.line.find('\n'); end != std::string::npos; end = client.line.find('\n')) {
    const std::string said = answer(client.line.substr(0, end));
    client.line.erase(0, end + 1);
    if (send(client.socket, said.data(), said.size(), MSG_NOSIGNAL) < 0) return false;
  }
  return client.line.size() <= kLineBytesMax;
}

// How many milliseconds until the next one.
int beat() {
  int pause = kBeatMillis;
  for_each_engine(
      [](Engine &engine, void *next) {
        ring2_producer_heartbeat(engine.producer);
        end_idle_requests(engine, ring2_monotonic_ns());
        const VocabularyState state = send_vocabulary(engine);
        if (state == VocabularyState::kOver) return;
        const int wait = state == VocabularyState::kWaits ? kTextsWaitMillis : kTextsMillis;
        int *pause = static_cast<int *>(next);
        *pause = std::min(*pause, wait);
      },
      &pause);
  return pause;
}

void accept_one(int listener, std::vector<Client> &clients) {
  const int accepted = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (accepted < 0) return;
  if (clients.size() >= kClientsMax) close(accepted);
  else clients.push_back({accepted, ""});
}

void *keep_house(void *) {
  pthread_setname_np(pthread_self(), "ring2-llama");
  const int listener = options().channel.empty() ? -1 : listen_on(options().channel);
  std::vector<Client> clients;
  int pause = kBeatMillis;
  for (;;) {
    std::vector<pollfd> watched{{listener, POLLIN, 0}};
    for (const Client &client : clients) watched.push_back({client.socket, POLLIN, 0});
    const int ready = poll(watched.data(), watched.size(), pause);
    try {
      pause = beat();
      if (ready <= 0) continue;
      for (size_t i = clients.size(); i-- > 0;) {
        if (watched[i + 1].revents == 0 || serve(clients[i])) continue;
        close(clients[i].socket);
        clients.erase(clients.begin() + static_cast<ptrdiff_t>(i));
      }
      if (watched[0].revents != 0) accept_one(listener, clients);
    } catch (const std::exception &error) {
      say("llama.cpp: %s", error.what());
    }
  }
  return nullptr;
}

}  // namespace

void start_housekeeping() {
  static std::once_flag once;
  std::call_once(once, [] {
    // The engine's own threads take its signals.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread{};
    if (pthread_create(&thread, nullptr, keep_house, nullptr) == 0) pthread_detach(thread);
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  });
}

}  // namespace ring2_llama
