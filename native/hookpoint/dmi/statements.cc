#include "statements.h"

#include <algorithm>
#include <cctype>

#include "bounds.h"

namespace ring2::dmi {
namespace {

const Columns kDmiColumns = {
    {"model_id", "String"},        {"request_id", "String"},    {"act_name", "String"},
    {"layer_no", "Int32"},         {"shard_rank", "Int32"},     {"start_token_idx", "Int32"},
    {"end_token_idx", "Int32"},    {"dtype", "String"},         {"shape", "Array(Int64)"},
    {"bytes", "String"}};

bool is_space(char letter) { return std::isspace(static_cast<unsigned char>(letter)) != 0; }
bool is_word(char letter) {
  return std::isalnum(static_cast<unsigned char>(letter)) != 0 || letter == '_';
}

struct Reader {
  std::string_view text;

  void blank() {
    while (true) {
      while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
      size_t end;
      if (text.starts_with("--")) end = text.find('\n');
      else if (text.starts_with("/*")) end = text.find("*/");
      else return;
      if (end == std::string_view::npos) end = text.size();
      else end += text[end] == '\n' ? 1 : 2;
      text.remove_prefix(end);
    }
  }

  // A word in upper case, left where it is unless it is the one that is looked for.
  bool word(std::string_view wanted) {
    blank();
    if (text.size() < wanted.size()) return false;
    for (size_t i = 0; i < wanted.size(); ++i) {
      if (std::toupper(static_cast<unsigned char>(text[i])) != wanted[i]) return false;
    }
    if (text.size() > wanted.size() && is_word(text[wanted.size()])) return false;
    text.remove_prefix(wanted.size());
    return true;
  }

  bool sign(char wanted) {
    blank();
    if (text.empty() || text.front() != wanted) return false;
    text.remove_prefix(1);
    return true;
  }

  std::string name() {
    blank();
    std::string found;
    if (text.empty()) return found;
    const char quote = text.front();
    if (quote == '`' || quote == '"') {
      const size_t end = text.find(quote, 1);
      if (end == std::string_view::npos) return found;
      found = text.substr(1, end - 1);
      text.remove_prefix(end + 1);
      return found;
    }
    size_t length = 0;
    while (length < text.size() && is_word(text[length])) ++length;
    found = text.substr(0, length);
    text.remove_prefix(length);
    return found;
  }

  // `database.table`, without the database: DMI has one.
  std::string table() {
    std::string found = name();
    while (sign('.')) found = name();
    return found;
  }

  // A word with what stands in parentheses behind it.
  std::string type() {
    std::string found = name();
    if (!sign('(')) return found;
    found += '(';
    for (int depth = 1; depth > 0 && !text.empty(); text.remove_prefix(1)) {
      const char letter = text.front();
      if (letter == '(') ++depth;
      else if (letter == ')') --depth;
      if (!is_space(letter)) found += letter;
    }
    return found;
  }

  // To behind the comma or the parenthesis that ends this part. False: it was the last.
  bool next_part() {
    int depth = 0;
    while (!text.empty()) {
      const char letter = text.front();
      text.remove_prefix(1);
      if (letter == '(') ++depth;
      else if (letter == ')' && depth-- == 0) return false;
      else if (letter == ',' && depth == 0) return true;
    }
    return false;
  }
};

Statement read_insert(Reader reader) {
  Statement statement{Statement::kInsert, "", {}, 0};
  reader.word("INTO");
  reader.word("TABLE");
  statement.table = reader.table();
  if (reader.sign('(')) {
    do {
      statement.columns.push_back(reader.name());
    } while (reader.sign(',') && statement.columns.size() < kColumnsMax);
    reader.sign(')');
  }
  // Rows that the server makes itself are none of ours.
  if (reader.word("SELECT") || reader.word("WITH")) statement.kind = Statement::kEngine;
  return statement;
}

std::string type_of(const Columns &columns, const std::string &name) {
  for (const auto &[column, type] : columns) {
    if (column == name) return type;
  }
  return "";
}

}  // namespace

Statement read_statement(std::string_view text) {
  Reader reader{text};
  if (reader.word("INSERT")) return read_insert(reader);
  for (const char *const word : {"CREATE", "USE", "SET", "ALTER", "DROP", "TRUNCATE", "OPTIMIZE",
                                 "RENAME", "ATTACH", "DETACH", "SYSTEM", "GRANT"}) {
    if (reader.word(word)) return {Statement::kEngine, "", {}, 0};
  }
  Statement statement;
  if (!reader.word("SELECT")) return statement;
  const std::string number = reader.name();
  reader.sign(';');
  reader.blank();
  const bool digits = !number.empty() && number.size() <= 2 &&
                      std::all_of(number.begin(), number.end(),
                                  [](char letter) { return letter >= '0' && letter <= '9'; });
  if (!digits || !reader.text.empty()) return statement;
  statement.kind = Statement::kLiteral;
  statement.literal = static_cast<uint8_t>(std::stoi(number));
  return statement;
}

void Tables::learn(std::string_view text) {
  Reader reader{text};
  if (!reader.word("CREATE")) return;
  reader.word("TEMPORARY");
  if (!reader.word("TABLE")) return;
  if (reader.word("IF") && reader.word("NOT")) reader.word("EXISTS");
  const std::string table = reader.table();
  if (reader.word("ON") && reader.word("CLUSTER")) reader.name();
  if (table.empty() || !reader.sign('(')) return;
  Columns columns;
  do {
    if (reader.word("PRIMARY") || reader.word("INDEX") || reader.word("CONSTRAINT")) continue;
    std::string name = reader.name();
    std::string type = reader.type();
    if (!name.empty() && !type.empty()) columns.emplace_back(std::move(name), std::move(type));
  } while (reader.next_part() && columns.size() < kColumnsMax);
  const std::lock_guard<std::mutex> guard(lock_);
  if (tables_.size() < kTablesMax || tables_.contains(table)) tables_[table] = std::move(columns);
}

Columns Tables::of_insert(const Statement &statement) const {
  Columns known;
  {
    const std::lock_guard<std::mutex> guard(lock_);
    const auto found = tables_.find(statement.table);
    known = found == tables_.end() ? kDmiColumns : found->second;
  }
  if (statement.columns.empty()) return known;
  Columns columns;
  for (const std::string &name : statement.columns) {
    std::string type = type_of(known, name);
    if (type.empty()) type = type_of(kDmiColumns, name);
    columns.emplace_back(name, type.empty() ? "String" : type);
  }
  return columns;
}

}  // namespace ring2::dmi
