--- DNS messages (RFC 1035, EDNS0 of RFC 6891) for dns_server.lua and dns_lookup.lua: names, parsing, queries.
---
--- Names are in wire format: labels with their length bytes, and the root's 0 at the end. Two names are equal
--- if their `lower()` is equal: a length byte (0..63) is never a letter.

local byte_span = require "byte_span"
local ip = require "ip"

local dns_message = {
  type = { A = 1, NS = 2, CNAME = 5, SOA = 6, TXT = 16, AAAA = 28, OPT = 41, ANY = 255 },
  class = { IN = 1 },
  rcode = { NOERROR = 0, FORMERR = 1, SERVFAIL = 2, NXDOMAIN = 3, NOTIMP = 4, REFUSED = 5, BADVERS = 16 },
  flag = { RESPONSE = 0x8000, AUTHORITATIVE = 0x0400, TRUNCATED = 0x0200, RECURSION_DESIRED = 0x0100 },
  HEADER = ">I2 I2 I2 I2 I2 I2", -- id, flags, and the number of questions, answers, authorities, additionals
  HEADER_SIZE = 12,
  PLAIN_LIMIT = 512, -- the largest message without EDNS
}

local flag, record_type = dns_message.flag, dns_message.type
local LONGEST_NAME, LONGEST_LABEL = 255, 63

local rcode_names = {}
for name, code in pairs(dns_message.rcode) do
  rcode_names[code] = name
end

--- Returns the name of a response code: "NXDOMAIN"; "RCODE9" for an unknown code.
function dns_message.rcode_name(code)
  return rcode_names[code] or "RCODE" .. code
end

-- --- names as text ---

-- Returns the byte at `position` of a name's text, where \. is a dot in a label and \065 the byte 65, and the
-- position after it. The third result is true for a dot between labels.
local function next_byte(text, position)
  local code = tonumber(text:match("^\\(%d%d%d)", position))
  if code and code < 256 then return string.char(code), position + 4, false end
  local escaped = text:match("^\\(%D)", position)
  if escaped then return escaped, position + 2, false end
  local byte = text:sub(position, position)
  return byte, position + 1, byte == "."
end

-- Returns the labels of a name's text. A dot at the end does not begin an empty label.
local function split_labels(text)
  local labels, bytes, position = {}, {}, 1
  while position <= #text do
    local byte, is_dot
    byte, position, is_dot = next_byte(text, position)
    if is_dot then
      labels[#labels + 1] = table.concat(bytes)
      bytes = {}
    else
      bytes[#bytes + 1] = byte
    end
  end
  if bytes[1] then labels[#labels + 1] = table.concat(bytes) end
  return labels
end

--- Converts text to a name: "www.example.test", with or without a dot at the end; "." is the root.
---@param text string
---@return string? name
---@return string? message the problem
function dns_message.name_from_text(text)
  if text == "" then return nil, "an empty name" end
  if text == "." then return "\0" end
  local parts = split_labels(text)
  for i, label in ipairs(parts) do
    if label == "" then return nil, "an empty label" end
    if #label > LONGEST_LABEL then return nil, "a label longer than 63 bytes" end
    parts[i] = string.pack("s1", label)
  end
  local name = table.concat(parts) .. "\0"
  if #name > LONGEST_NAME then return nil, "a name longer than 255 bytes" end
  return name
end

local function escape(byte)
  if byte == "." or byte == "\\" then return "\\" .. byte end
  return ("\\%03d"):format(byte:byte())
end

--- Returns the text of a name, without a dot at the end; special bytes are escaped.
---@param name string
---@return string
function dns_message.name_to_text(name)
  local labels, position = {}, 1
  while position < #name do
    local label
    label, position = string.unpack("s1", name, position)
    labels[#labels + 1] = label:gsub("[^%w%-_*]", escape)
  end
  return labels[1] and table.concat(labels, ".") or "."
end

--- Returns the name without its first label; nil for the root.
---@param name string
---@return string?
function dns_message.parent(name)
  if name == "\0" then return nil end
  return name:sub(name:byte() + 2)
end

-- --- parsing ---

-- The readers below raise this error, and `parse` catches it. Other errors are mistakes in this program.
local Malformed = {}

local function malformed(reason)
  error(setmetatable({ reason = reason }, Malformed), 0)
end

-- Runs fn(...); returns nil and the reason if the bytes are malformed.
local function guarded(fn, ...)
  local ok, result = pcall(fn, ...)
  if ok then return result end
  if getmetatable(result) == Malformed then return nil, result.reason end
  error(result, 0)
end

-- Like span:unpack, for formats of fixed size.
local function unpack_at(span, position, format)
  if position + string.packsize(format) - 1 > #span then malformed("the message ends early") end
  return span:unpack(format, position)
end

local function take(span, position, size)
  if position + size - 1 > #span then malformed("the message ends early") end
  return span:sub(position, position + size - 1), position + size
end

-- Reads the name at `position`; returns it and the position after it. A compression pointer must point to a
-- position before the first label of the name, or before the target of the previous pointer. So the targets
-- move towards the header, and the loop ends.
local function read_name(span, position)
  local labels, length = {}, 1
  local behind, began = nil, position
  while true do
    local size = unpack_at(span, position, "B")
    if size == 0 then return table.concat(labels) .. "\0", behind or position + 1 end
    if size >= 0xC0 then
      local target = (unpack_at(span, position, ">I2") & 0x3FFF) + 1
      if target >= began or target <= dns_message.HEADER_SIZE then malformed("a compression pointer to nowhere") end
      behind = behind or position + 2
      position, began = target, target
    elseif size > LONGEST_LABEL then
      malformed("a label longer than 63 bytes")
    else
      labels[#labels + 1], position = take(span, position, size + 1)
      length = length + size + 1
      if length > LONGEST_NAME then malformed("a name longer than 255 bytes") end
    end
  end
end

---@class dns_message.question
---@field name string
---@field type integer
---@field class integer

local function read_question(span, position)
  local question = {}
  question.name, position = read_name(span, position)
  question.type, question.class, position = unpack_at(span, position, ">I2 I2")
  return question, position
end

---@class dns_message.record
---@field name string
---@field type integer
---@field class integer
---@field ttl integer
---@field data string
---@field target string? the name that a CNAME record holds

local function read_record(span, position)
  local record = {}
  record.name, position = read_name(span, position)
  local size
  record.type, record.class, record.ttl, size, position = unpack_at(span, position, ">I2 I2 I4 I2")
  local begin = position
  record.data, position = take(span, begin, size)
  if record.type == record_type.CNAME then
    local behind
    record.target, behind = read_name(span, begin)
    if behind ~= position then malformed("a name of another length than its record says") end
  end
  return record, position
end

local function read_list(span, position, count, read)
  local list = {}
  for i = 1, count do
    list[i], position = read(span, position)
  end
  return list, position
end

---@class dns_message.header
---@field id integer
---@field flags integer
---@field is_response boolean
---@field opcode integer
---@field is_truncated boolean
---@field rcode integer
---@field counts integer[] how many questions, answers, authorities and additionals

--- Reads the header; returns nil if the message is shorter than a header.
---@param span byte_span
---@return dns_message.header?
function dns_message.parse_header(span)
  if #span < dns_message.HEADER_SIZE then return nil end
  local id, flags, questions, answers, authorities, additionals = span:unpack(dns_message.HEADER)
  return {
    id = id,
    flags = flags,
    is_response = flags & flag.RESPONSE ~= 0,
    opcode = flags >> 11 & 15,
    is_truncated = flags & flag.TRUNCATED ~= 0,
    rcode = flags & 15,
    counts = { questions, answers, authorities, additionals },
  }
end

---@class dns_message.edns
---@field size integer the largest message that the sender accepts
---@field version integer
---@field rcode integer the upper bits of the response code

-- Returns the OPT record of the additional section, or nil.
local function find_edns(additionals)
  local edns
  for _, record in ipairs(additionals) do
    if record.type == record_type.OPT then
      if edns then malformed("two OPT records") end
      if record.name ~= "\0" then malformed("an OPT record with a name") end
      edns = { size = record.class, version = record.ttl >> 16 & 0xFF, rcode = record.ttl >> 24 << 4 }
    end
  end
  return edns
end

---@class dns_message.message: dns_message.header
---@field questions dns_message.question[]
---@field questions_end integer where the questions end
---@field answers dns_message.record[]
---@field authorities dns_message.record[]
---@field edns dns_message.edns?

local function read_message(span)
  local message = dns_message.parse_header(span)
  if message == nil then malformed("shorter than a header") end
  local counts, position = message.counts, dns_message.HEADER_SIZE + 1
  message.questions, position = read_list(span, position, counts[1], read_question)
  message.questions_end = position - 1
  message.answers, position = read_list(span, position, counts[2], read_record)
  message.authorities, position = read_list(span, position, counts[3], read_record)
  local additionals
  additionals, position = read_list(span, position, counts[4], read_record)
  if position <= #span then malformed("bytes behind the last record") end
  message.edns = find_edns(additionals)
  if message.edns then message.rcode = message.rcode | message.edns.rcode end
  return message
end

--- Parses an untrusted message.
---@param span byte_span
---@return dns_message.message?
---@return string? reason why it is malformed
function dns_message.parse(span)
  return guarded(read_message, span)
end

-- --- making messages ---

--- Returns an OPT record.
---@param size integer the largest message that we accept
---@param rcode integer? the response code; its upper bits belong here
---@return string
function dns_message.opt_record(size, rcode)
  return string.pack(">B I2 I2 I4 I2", 0, record_type.OPT, size, (rcode or 0) >> 4 << 24, 0)
end

--- Returns a query for one name.
---@param id integer
---@param question dns_message.question
---@param edns_size integer? the largest answer to accept; without it the query has no EDNS, which means 512
---@return byte_span
function dns_message.query(id, question, edns_size)
  local header = string.pack(dns_message.HEADER, id, flag.RECURSION_DESIRED, 1, 0, 0, edns_size and 1 or 0)
  local rest = string.pack(">I2 I2", question.type, question.class)
  return byte_span.append(header, question.name, rest, edns_size and dns_message.opt_record(edns_size))
end

-- --- the data of records as text ---

local function quote_byte(byte)
  if byte == '"' or byte == "\\" then return "\\" .. byte end
  return ("\\%03d"):format(byte:byte())
end

local function text_strings(data)
  local strings, position = {}, 1
  while position <= #data do
    if position + data:byte(position) > #data then return nil end
    local text
    text, position = string.unpack("s1", data, position)
    strings[#strings + 1] = '"' .. text:gsub('[^\32\33\35-\91\93-\126]', quote_byte) .. '"'
  end
  return strings[1] and table.concat(strings, " ")
end

local data_readers = {
  [record_type.A] = function(data) return #data == 4 and tostring(ip.address.from_bytes(data)) end,
  [record_type.AAAA] = function(data) return #data == 16 and tostring(ip.address.from_bytes(data)) end,
  [record_type.TXT] = text_strings,
}

--- Returns the data of an A, AAAA or TXT record as text; nil if it is malformed.
---@param record dns_message.record
---@return string?
function dns_message.data_to_text(record)
  return data_readers[record.type](record.data) or nil
end

return dns_message
