--- The zone that dns_server.lua serves: read from a table or a file, checked, and stored in wire format.
---
--- A zone has one record on each line, NAME TTL TYPE VALUE; dns_server.lua --help describes the file.

local dns_message = require "dns_message"
local ip = require "ip"

local class, record_type = dns_message.class, dns_message.type

local dns_zone = {}

-- --- the values of records: text to wire format ---

local function address_reader(version)
  return function(text)
    local address, message = ip.address.parse(text)
    if not address then return nil, message end
    if not address["is_" .. version] then return nil, ("a %s address expected"):format(version) end
    if address.is_v6 and address.scope_id ~= 0 then return nil, "an address with a scope" end
    return address:to_bytes()
  end
end

-- Returns the strings of a TXT record: the "quoted" strings or, without quotes, the whole text.
local function split_strings(text)
  if text:sub(1, 1) ~= '"' then return { text } end
  local strings, position = {}, 1
  while position <= #text do
    local closing = position + 1
    while text:sub(closing, closing) ~= '"' do
      if closing > #text then return nil, "a quote that is never closed" end
      closing = closing + (text:sub(closing, closing) == "\\" and 2 or 1)
    end
    strings[#strings + 1] = text:sub(position + 1, closing - 1):gsub("\\(.)", "%1")
    position = text:match('^%s*()', closing + 1)
    if position <= #text and text:sub(position, position) ~= '"' then return nil, "text behind a quoted string" end
  end
  return strings
end

local function read_text(text)
  local strings, message = split_strings(text)
  if not strings then return nil, message end
  local pieces = {}
  for _, whole in ipairs(strings) do
    for first = 1, math.max(#whole, 1), 255 do
      pieces[#pieces + 1] = string.pack("s1", whole:sub(first, first + 254))
    end
  end
  return table.concat(pieces)
end

local function read_authority(text)
  local main, mailbox, numbers = text:match("^(%S+)%s+(%S+)%s+(.+)$")
  local values = {}
  for number in (numbers or ""):gmatch("%S+") do
    local value = number:find("^%d+$") and math.tointeger(tonumber(number))
    if not value or value > 0xFFFFFFFF then return nil, number .. " is no 32 bit number" end
    values[#values + 1] = value
  end
  if #values ~= 5 then return nil, "two names and five numbers expected" end
  local main_name, message = dns_message.name_from_text(main)
  if not main_name then return nil, message end
  local mailbox_name
  mailbox_name, message = dns_message.name_from_text(mailbox)
  if not mailbox_name then return nil, message end
  return main_name .. mailbox_name .. string.pack(">I4 I4 I4 I4 I4", table.unpack(values))
end

local value_readers = { A = address_reader("v4"), AAAA = address_reader("v6"), TXT = read_text, SOA = read_authority }

-- --- the zone ---

---@class dns_zone
---@field apex string the name with which all names of the zone end
---@field authority string the SOA record, without the name at its start
---@field names table<string, table<integer, string[]>> the records of each name and type, ready to be sent

-- Returns a record in wire format, without its name.
local function encode(type, ttl, data)
  return string.pack(">I2 I2 I4 s2", type, class.IN, ttl, data)
end

-- Checks NAME TTL TYPE VALUE; returns nil and a message if they are wrong.
local function read_record(name_text, ttl, type, value)
  if not value then return nil, "NAME TTL TYPE VALUE expected" end
  local name, message = dns_message.name_from_text(name_text)
  if not name then return nil, message end
  local seconds = math.tointeger(tonumber(ttl))
  if not seconds or seconds < 0 or seconds > 0x7FFFFFFF then return nil, ("a TTL of %s seconds"):format(ttl) end
  local read = value_readers[type:upper()]
  if not read then return nil, ("type %s is not one of A, AAAA, TXT, SOA"):format(type) end
  local data
  data, message = read(value)
  if not data then return nil, message end
  if #data > 65535 then return nil, "a value longer than 65535 bytes" end
  return { name = name:lower(), ttl = seconds, type = record_type[type:upper()], data = data }
end

-- Reads all lines of a zone; adds a line to `complaints` for each malformed line.
local function read_records(lines, source, complaints)
  local records = {}
  for i, line in ipairs(lines) do
    local where = line.where or ("%s, record %d"):format(source, i)
    local record, message = read_record(table.unpack(line, 1, 4))
    if record then
      record.where = where
      records[#records + 1] = record
    else
      complaints[#complaints + 1] = where .. ": " .. message
    end
  end
  return records
end

local function find_authority(records, source, complaints)
  local authority
  for _, record in ipairs(records) do
    if record.type == record_type.SOA then
      if authority then complaints[#complaints + 1] = record.where .. ": a second SOA record" end
      authority = authority or record
    end
  end
  if not authority then complaints[#complaints + 1] = source .. ": no SOA record" end
  return authority
end

--- Returns whether `name` is the name `apex` or a name below it. Both are in lower case.
function dns_zone.is_within(name, apex)
  while name and name ~= apex do
    name = dns_message.parent(name)
  end
  return name ~= nil
end

-- Names between a record's name and the apex also exist, although they have no records.
local function add_name(zone, name)
  local records = zone.names[name]
  if records then return records end
  zone.names[name] = {}
  if name ~= zone.apex then add_name(zone, dns_message.parent(name)) end
  return zone.names[name]
end

-- In an answer each record has the queried name, which is after the header.
local POINTER_TO_QUESTION = string.pack(">I2", 0xC000 | dns_message.HEADER_SIZE)

local function add_record(zone, record)
  local of_name = add_name(zone, record.name)
  local of_type = of_name[record.type] or {}
  of_type[#of_type + 1] = POINTER_TO_QUESTION .. encode(record.type, record.ttl, record.data)
  of_name[record.type] = of_type
end

--- Makes a zone from lines { name, ttl, type, value }; a field `where` has the position of the line.
---@param lines table[]
---@param source string the name of the zone's source in complaints
---@return dns_zone?
---@return string[]? complaints all the problems
function dns_zone.new(lines, source)
  local complaints = {}
  local records = read_records(lines, source, complaints)
  local authority = find_authority(records, source, complaints)
  if not authority then return nil, complaints end
  -- The TTL of a negative answer is the last number of the SOA record or the record's own TTL, whichever is
  -- less.
  local negative_ttl = math.min(authority.ttl, (string.unpack(">I4", authority.data, -4)))
  local zone = { apex = authority.name, authority = encode(record_type.SOA, negative_ttl, authority.data), names = {} }
  for _, record in ipairs(records) do
    if dns_zone.is_within(record.name, zone.apex) then
      add_record(zone, record)
    else
      local apex = dns_message.name_to_text(zone.apex)
      complaints[#complaints + 1] = ("%s: the name does not end with %s"):format(record.where, apex)
    end
  end
  if complaints[1] then return nil, complaints end
  return zone
end

-- Returns the fields of a line of a zone file, or none if it does not have all four; nil for a comment or an
-- empty line.
local function split_line(text)
  if text:find("^%s*#") or not text:find("%S") then return nil end
  local name, ttl, type, value = text:match("^%s*(%S+)%s+(%S+)%s+(%S+)%s+(.-)%s*$")
  return { name, ttl, type, value ~= "" and value or nil }
end

--- Reads a zone file.
---@param file file*
---@param path string the file's name, for the complaints
---@return dns_zone?
---@return string[]? complaints all the problems
function dns_zone.read(file, path)
  local lines, number = {}, 0
  for text in file:lines() do
    number = number + 1
    local line = split_line(text)
    if line then
      line.where = ("%s:%d"):format(path, number)
      lines[#lines + 1] = line
    end
  end
  return dns_zone.new(lines, path)
end

return dns_zone
