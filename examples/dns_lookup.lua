--- Queries a DNS server for many names concurrently.
--- usage: lua5.4 dns_lookup.lua [--server ADDRESS] [--port PORT] [--type A,AAAA,TXT] NAME...

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local byte_span = require "byte_span"
local command_line = require "command_line"
local dns_message = require "dns_message"
local ip = require "ip"

local class, rcode, record_type = dns_message.class, dns_message.rcode, dns_message.type
local LONGEST_CHAIN = 16 -- of CNAME records

-- Parses "A,AAAA" into a list of type names.
local function read_types(text)
  local types = {}
  for name in (text:upper() .. ","):gmatch("(.-),") do
    if name ~= "A" and name ~= "AAAA" and name ~= "TXT" then return nil, "some of A, AAAA, TXT expected" end
    types[#types + 1] = name
  end
  return types
end

local function read_size(text)
  local size = command_line.integer(0, 4096)(text)
  if size and (size == 0 or size >= dns_message.PLAIN_LIMIT) then return size end
  return nil, "0 or a whole number within 512..4096 expected"
end

local command = command_line.new {
  usage = "dns_lookup.lua [options] NAME...",
  about = "Asks a DNS server for many names at once and prints what it says in the order of the names.\n"
    .. "The exit code is 1 when a name could not be resolved, or not completely.",
  operands = "at least one NAME",
  options = {
    { name = "server", value = "ADDRESS", read = ip.address.parse, default = "127.0.0.1",
      help = "the server's v4 or v6 address" },
    { name = "port", value = "PORT", read = command_line.remote_port, default = 5300, help = "the server's port" },
    { name = "type", value = "TYPES", read = read_types, default = "A", help = "A, AAAA, TXT; several with commas" },
    { name = "timeout", value = "SECONDS", read = command_line.seconds(false), default = 2,
      help = "how long to wait for each answer" },
    { name = "tries", value = "N", read = command_line.integer(1, 100), default = 3, help = "how often to ask" },
    { name = "concurrency", value = "N", read = command_line.integer(1, 1000), default = 50,
      help = "how many names to resolve at once" },
    { name = "size", value = "BYTES", read = read_size, default = 1232,
      help = "the largest answer to accept; 0: no EDNS, and so at most 512" },
  },
}
local options, names = command:parse(arg)

-- --- one question ---

local random = io.open("/dev/urandom", "rb")

-- The sender of a forged answer has to guess two values: this id and the port of the socket.
local function random_id()
  local bytes = random and random:read(2)
  return bytes and string.unpack("I2", bytes) or math.random(0, 0xFFFF)
end

-- Returns whether the message answers the question. A server that did not understand the query may omit the
-- question.
local function is_answer(message, id, question)
  if not message.is_response or message.opcode ~= 0 or message.id ~= id then return false end
  local asked = message.questions[1]
  if not asked then return message.rcode ~= rcode.NOERROR and message.rcode ~= rcode.NXDOMAIN end
  return not message.questions[2] and asked.name:lower() == question.name:lower()
    and asked.type == question.type and asked.class == question.class
end

-- Asks once. Every try has a new socket, and so a new port that the system chooses at random. The socket is
-- connected, so it receives only datagrams from the server, and the system reports a port where no server
-- listens. Other datagrams are ignored: the answer may still arrive.
local function ask(question)
  local sock <close> = ip.udp.connect(options.server, options.port)
  local id = random_id()
  sock:send(dns_message.query(id, question, options.size > 0 and options.size or nil))
  local buf = byte_span.new(math.max(options.size, dns_message.PLAIN_LIMIT))
  while true do
    local n = sock:receive(buf:resize(buf.capacity))
    local message = dns_message.parse(buf:resize(n))
    if message and is_answer(message, id, question) then return message end
  end
end

-- Asks until there is an answer, or a reason not to ask again; then returns nil and the reason.
local function ask_patiently(question)
  local err
  for _ = 1, options.tries do
    local ok, result = pcall(ip.fiber.with_timeout, options.timeout, ask, question)
    if ok then return result end
    if type(result) ~= "userdata" then error(result, 0) end -- a mistake in this program
    err = result
    if err ~= ip.error.ETIMEDOUT then break end
  end
  if err == ip.error.ETIMEDOUT then return nil, ("no answer in %d tries"):format(options.tries) end
  return nil, ("%s (%s)"):format(err.message, err.name)
end

-- --- what an answer says ---

local function find_alias(message, name)
  for _, record in ipairs(message.answers) do
    if record.target and record.class == class.IN and record.name:lower() == name then return record.target:lower() end
  end
end

-- Returns the values for the question's name, or for the name of which it is an alias.
local function collect(message, question)
  local name = question.name:lower()
  for _ = 1, LONGEST_CHAIN do
    local alias = find_alias(message, name)
    if not alias then break end
    name = alias
  end
  local values = {}
  for _, record in ipairs(message.answers) do
    if record.name:lower() == name and record.type == question.type and record.class == class.IN then
      values[#values + 1] = dns_message.data_to_text(record)
    end
  end
  return values
end

---@return string[] values
---@return string? problem
local function resolve(name, type)
  local question = { name = name, type = record_type[type], class = class.IN }
  local message, problem = ask_patiently(question)
  if not message then return {}, problem end
  local values = collect(message, question)
  if message.rcode ~= rcode.NOERROR then return values, dns_message.rcode_name(message.rcode) end
  if message.is_truncated then return values, "the answer is truncated (TC)" end
  if not values[1] then return values, "no such record" end
  return values
end

-- --- all names ---

local all_resolved = true

-- Returns the lines to print for one name.
local function lookup(text)
  local name = dns_message.name_from_text(text)
  local lines = {}
  for _, type in ipairs(options.type) do
    local values, problem = resolve(name, type)
    for _, value in ipairs(values) do
      lines[#lines + 1] = ("%s %s %s"):format(text, type, value)
    end
    if problem then
      lines[#lines + 1] = ("%s %s failed: %s"):format(text, type, problem)
      all_resolved = false
    end
  end
  return lines
end

local results = {} -- lines by the position of the name in the arguments
local begun, printed = 0, 0

-- Prints the results that are next in order, as far as they are known.
local function print_results()
  while results[printed + 1] do
    printed = printed + 1
    print(table.concat(results[printed], "\n"))
    results[printed] = {}
  end
end

-- Starts a fiber for the next name. At its end the fiber starts the next one, so the number of concurrent
-- fibers never grows.
local function begin_next()
  if begun == #names then return end
  begun = begun + 1
  local place = begun
  ip.fiber.spawn(function()
    results[place] = lookup(names[place])
    print_results()
    begin_next()
  end)
end

for _, text in ipairs(names) do
  local name, message = dns_message.name_from_text(text)
  if not name then command:fail(("%s: %s"):format(text, message)) end
end
command_line.run(function()
  for _ = 1, options.concurrency do
    begin_next()
  end
  ip.fiber.run()
  return all_resolved and printed == #names
end)
