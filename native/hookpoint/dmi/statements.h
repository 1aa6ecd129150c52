// What a statement asks for, as far as the bridge has to know. No SQL parser: names and types of
// columns out of CREATE TABLE and INSERT, and whether an answer of our own makes sense.
#ifndef RING2_DMI_STATEMENTS_H
#define RING2_DMI_STATEMENTS_H

#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ring2::dmi {

using Columns = std::vector<std::pair<std::string, std::string>>;  // name, type

struct Statement {
  enum Kind {
    kInsert,   // data follows
    kEngine,   // CREATE, USE, SET, …: answered as done, whatever happens
    kLiteral,  // SELECT of a small number
    kOther     // reads something
  };
  Kind kind = kOther;
  std::string table;                 // kInsert
  std::vector<std::string> columns;  // kInsert; empty: all of the table
  uint8_t literal = 0;
};

Statement read_statement(std::string_view text);

// Columns of the tables that were created here; DMI's for any other.
class Tables {
 public:
  void learn(std::string_view text);
  Columns of_insert(const Statement &statement) const;

 private:
  mutable std::mutex lock_;
  std::map<std::string, Columns> tables_;
};

}  // namespace ring2::dmi
#endif
