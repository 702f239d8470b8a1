--- A small authoritative DNS server: A, AAAA and TXT records of one zone, over v4 and v6.
--- usage: lua5.4 dns_server.lua [--port PORT] [--zone FILE]

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local command_line = require "command_line"
local dns_message = require "dns_message"
local dns_zone = require "dns_zone"
local ip = require "ip"

local class, flag, rcode, record_type = dns_message.class, dns_message.flag, dns_message.rcode, dns_message.type

local LARGEST_QUERY = 1232 -- the size in our OPT record, which fits into one packet on every usual path
local LARGEST_REPLY = 4096 -- even if a client accepts more

-- The default zone without --zone: name, seconds to live, type and value, as on the lines of a zone file.
local example_zone = {
  { "example.test", 3600, "SOA", "ns.example.test hostmaster.example.test 1 7200 900 1209600 300" },
  { "example.test", 3600, "A", "192.0.2.1" },
  { "example.test", 3600, "TXT", '"the zone of an example"' },
  { "ns.example.test", 3600, "A", "127.0.0.1" },
  { "ns.example.test", 3600, "AAAA", "::1" },
  { "www.example.test", 300, "A", "192.0.2.80" },
  { "www.example.test", 300, "A", "192.0.2.81" },
  { "www.example.test", 300, "AAAA", "2001:db8::80" },
  { "mail.example.test", 300, "A", "192.0.2.25" },
  { "v6.example.test", 300, "AAAA", "2001:db8::6" },
  { "text.example.test", 300, "TXT", '"one string" "and another"' },
  { "long.example.test", 300, "TXT", ("a text of many strings "):rep(40) },
}

local command = command_line.new {
  usage = "dns_server.lua [options]",
  about = [[
Answers DNS queries for one zone on 127.0.0.1 and ::1, until Ctrl-C.

A zone file has one record on each line: NAME TTL TYPE VALUE, separated by blanks. Names are
complete; a dot at their end may be left out. Lines that begin with # and empty ones are ignored.
  example.test      3600 SOA  ns.example.test hostmaster.example.test 1 7200 900 1209600 300
  www.example.test  300  A    192.0.2.80
  www.example.test  300  AAAA 2001:db8::80
  www.example.test  300  TXT  "one string" "another with \" in it"
One SOA record, for the name that all others end with, is required: main server, mailbox, serial,
refresh, retry, expire, and how long a negative answer may be kept. A text without quotes goes to
the end of the line. Strings longer than 255 bytes are split.]],
  options = {
    { name = "port", value = "PORT", read = command_line.port, default = 5300,
      help = "the port to listen on; with 0 the system chooses one for each address" },
    { name = "zone", value = "FILE", help = "the file with the zone; without it, an example is served" },
  },
}
local options = command:parse(arg)

local function give_up(messages)
  for _, message in ipairs(messages) do
    io.stderr:write("dns_server.lua: ", message, "\n")
  end
  os.exit(1, true)
end

local function load_zone()
  local path = options.zone
  if not path then return dns_zone.new(example_zone, "the example zone") end
  local file <close>, problem = io.open(path)
  if file then problem = select(2, file:read(0)) end -- a directory can be opened, but not read
  if problem then command:fail(("--zone %s: %s"):format(path, command_line.reason(problem))) end
  return dns_zone.read(file, path)
end

-- --- answering ---

---@class reply
---@field rcode integer
---@field flags integer
---@field answers string[]
---@field authority string?

local function refusal(code)
  return { rcode = code, flags = 0, answers = {} }
end

-- NXDOMAIN or, with NOERROR, "the name exists, but has no such record": both contain the zone's SOA record.
-- The SOA record's name is the end of the queried name.
local function negative(zone, question, code)
  local apex_offset = dns_message.HEADER_SIZE + #question.name - #zone.apex
  local authority = string.pack(">I2", 0xC000 | apex_offset) .. zone.authority
  return { rcode = code, flags = flag.AUTHORITATIVE, answers = {}, authority = authority }
end

-- ANY returns the records of one type, not all records (RFC 8482).
local function records_for(of_name, type)
  if type ~= record_type.ANY then return of_name[type] end
  for _, candidate in ipairs { record_type.A, record_type.AAAA, record_type.TXT, record_type.SOA } do
    if of_name[candidate] then return of_name[candidate] end
  end
end

local function answer_question(zone, question)
  if question.class ~= class.IN then return refusal(rcode.REFUSED) end
  local name = question.name:lower()
  if not dns_zone.is_within(name, zone.apex) then return refusal(rcode.REFUSED) end
  local of_name = zone.names[name]
  if not of_name then return negative(zone, question, rcode.NXDOMAIN) end
  local answers = records_for(of_name, question.type)
  if not answers then return negative(zone, question, rcode.NOERROR) end
  return { rcode = rcode.NOERROR, flags = flag.AUTHORITATIVE, answers = answers }
end

-- OPT, zone transfers and similar types are not records of a name.
local function is_meta(type)
  return type == record_type.OPT or type >= 128 and type < record_type.ANY
end

local function answer(zone, message)
  local question = message.questions[1]
  if message.edns and message.edns.version ~= 0 then return refusal(rcode.BADVERS) end
  if is_meta(question.type) then return refusal(rcode.NOTIMP) end
  return answer_question(zone, question)
end

local function total_size(parts)
  local size = 0
  for _, part in ipairs(parts) do
    size = size + #part
  end
  return size
end

local KEPT_FLAGS = 0xF << 11 | flag.RECURSION_DESIRED -- the answer repeats the opcode, too

-- Returns an answer with only a header, for a malformed query.
local function bare_reply(header, code)
  local flags = header.flags & KEPT_FLAGS | flag.RESPONSE | code
  return string.pack(dns_message.HEADER, header.id, flags, 0, 0, 0, 0)
end

-- Returns the datagram as a sequence of parts, which `send_to` sends as one: the header, the question as
-- received, the records. If the datagram would be too large, it has no records, and the flag TRUNCATED is
-- set.
local function compose(message, question_bytes, reply)
  local edns = message.edns
  local limit = math.min(math.max(edns and edns.size or 0, dns_message.PLAIN_LIMIT), LARGEST_REPLY)
  local records = table.move(reply.answers, 1, #reply.answers, 1, {})
  records[#records + 1] = reply.authority
  local opt = edns and dns_message.opt_record(LARGEST_QUERY, reply.rcode)
  local flags = message.flags & KEPT_FLAGS | flag.RESPONSE | reply.flags | reply.rcode & 15
  local answers, authorities = #reply.answers, reply.authority and 1 or 0
  local fixed = dns_message.HEADER_SIZE + #question_bytes + (opt and #opt or 0)
  if fixed + total_size(records) > limit then
    records, answers, authorities, flags = {}, 0, 0, flags | flag.TRUNCATED
  end
  records[#records + 1] = opt
  local header = string.pack(dns_message.HEADER, message.id, flags, 1, answers, authorities, opt and 1 or 0)
  return { header, question_bytes, table.unpack(records) }
end

-- Returns the answer to a datagram; nil for no answer. An answer is never answered: otherwise two servers
-- might exchange answers forever.
local function respond(zone, query, truncated)
  local header = dns_message.parse_header(query)
  if not header or header.is_response then return nil end
  if header.opcode ~= 0 then return bare_reply(header, rcode.NOTIMP) end
  if truncated or header.counts[1] ~= 1 then return bare_reply(header, rcode.FORMERR) end
  local message = dns_message.parse(query)
  if not message then return bare_reply(header, rcode.FORMERR) end
  local question_bytes = query:slice(dns_message.HEADER_SIZE + 1, message.questions_end)
  return compose(message, question_bytes, answer(zone, message))
end

-- --- serving ---

-- An error that concerns one datagram or one peer does not end the server. A series of equal ones is reported
-- once.
local reported
local function report(err)
  if err ~= reported then io.stderr:write("dns_server.lua: ", tostring(err), "\n") end
  reported = err
end

local function serve(sock, zone)
  local function answer_query(query, _, _, truncated)
    return respond(zone, query, truncated)
  end
  sock:serve(answer_query, { capacity = LARGEST_QUERY, on_error = report })
end

-- A system may lack v6 or v4: then one address is enough.
local function lacks_family(err)
  return err == ip.error.EADDRNOTAVAIL or err == ip.error.EAFNOSUPPORT
end

local function listen()
  local sockets = {}
  for _, address in ipairs { "127.0.0.1", "::1" } do
    local ok, result = pcall(ip.udp.bind, address, options.port)
    local message = not ok and ("cannot listen on %s: %s"):format(ip.tostring(address, options.port), result)
    if ok then
      sockets[#sockets + 1] = result
    elseif lacks_family(result) then
      io.stderr:write("dns_server.lua: ", message, "\n")
    else
      give_up { message }
    end
  end
  if not sockets[1] then give_up { "no address to listen on" } end
  return sockets
end

command_line.run(function()
  local zone, complaints = load_zone()
  if not zone then give_up(complaints) end
  local announcements = {}
  for i, sock in ipairs(listen()) do
    ip.fiber.spawn(serve, sock, zone)
    announcements[i] = "listening on " .. ip.tostring(sock.local_address, sock.local_port)
  end
  print(table.concat(announcements, "\n")) -- in one write, for scripts that wait for the line
  io.stdout:flush()
  ip.fiber.run()
end)
