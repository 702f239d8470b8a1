--- A TFTP server (RFC 1350) with the options blksize, timeout and tsize (RFC 2347, 2348, 2349).
--- usage: lua5.4 tftp_server.lua [--root DIRECTORY] [--address ADDRESS] [--port PORT] [--write] …

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local byte_span = require "byte_span"
local command_line = require "command_line"
local ip = require "ip"
local message = require "tftp_message"

local fiber = ip.fiber
local OPCODE, ERROR = message.opcode, message.error

local ENOENT, EACCES = 2, 13

-- An empty text would be the root of the file system. A directory whose list cannot be read may have files that can.
local function read_directory(text)
  if text == "" then return nil, "a directory expected" end
  local found <close>, problem, code = io.open(text .. "/.")
  if found or code == EACCES then return text end
  return nil, command_line.reason(problem)
end

local options = command_line.new {
  usage = "tftp_server.lua [options]",
  about = [[
Serves the files of a directory to TFTP clients, and with --write takes files from them, until
Ctrl-C. Whoever reaches the port may read every file below the directory, and what symbolic links
there lead to: TFTP has no passwords.]],
  options = {
    { name = "root", value = "DIRECTORY", read = read_directory, default = ".", help = "the directory of the files" },
    { name = "address", value = "ADDRESS", read = ip.address.parse, default = "127.0.0.1",
      help = "the v4 or v6 address to listen on" },
    { name = "port", value = "PORT", read = command_line.port, default = 6969,
      help = "the port to listen on; with 0 the system chooses one" },
    { name = "write", help = "take new files from clients" },
    { name = "overwrite", help = "take files that replace others, too" },
    { name = "timeout", value = "SECONDS", read = command_line.seconds(false), default = 1,
      help = "how long to wait for an answer before a packet is sent again" },
    { name = "retries", value = "N", read = command_line.integer(1, 100), default = 5,
      help = "how often to send a packet before the transfer is given up" },
    { name = "transfers", value = "N", read = command_line.integer(1, 10000), default = 100,
      help = "how many clients to serve at once" },
  },
}:parse(arg)

-- Ends a transfer with an error packet to the client.
local function refuse(code, text)
  error({ code = code, text = text }, 0)
end

-- --- files ---

-- Returns the path of a requested file. No part of a name leads out of the directory.
local function path_of(name)
  local parts = {}
  for part in name:gmatch("[^/]+") do
    if part == ".." or part:find("[%c\\]") then refuse(ERROR.ACCESS, "no such name is allowed") end
    parts[#parts + 1] = part
  end
  if #parts == 0 then refuse(ERROR.ACCESS, "no such name is allowed") end
  return options.root .. "/" .. table.concat(parts, "/")
end

-- Opens a file for reading; returns it and its size.
local function open_source(path)
  local file, text, code = io.open(path, "rb")
  if file == nil then refuse(code == ENOENT and ERROR.NOT_FOUND or ERROR.ACCESS, command_line.reason(text)) end
  local readable, problem = file:read(0) -- a directory can be opened, but not read
  local size = file:seek("end")
  if problem or not size or not readable and size > 0 then
    file:close()
    refuse(ERROR.ACCESS, problem and command_line.reason(problem) or "not a file")
  end
  file:seek("set")
  return file, size
end

local function check_new(path)
  local existing <close> = not options.overwrite and io.open(path, "rb") or nil
  if existing then refuse(ERROR.EXISTS, "the file exists") end
end

-- A file that comes gets its name when it is complete.
local function open_sink(path)
  if not (options.write or options.overwrite) then refuse(ERROR.ACCESS, "this server takes no files") end
  check_new(path)
  local part = ("%s.%08x.part"):format(path, math.random(0, 0xFFFFFFFF))
  local file, text = io.open(part, "wb")
  if file == nil then refuse(ERROR.ACCESS, command_line.reason(text)) end
  return setmetatable({ file = file, part = part, path = path }, { __close = function(self)
    self.file:close()
    os.remove(self.part) -- where it has its name, there is no such file any more
  end })
end

local function complete(sink)
  check_new(sink.path) -- another client may have been faster
  if not sink.file:flush() or not os.rename(sink.part, sink.path) then refuse(ERROR.FULL, "cannot write the file") end
end

-- --- packets ---

-- The answer to a packet was that the client has not got it.
local AGAIN = {}

-- Receives packets until accepts(opcode, number, data) returns something; returns that.
local function await(transfer, accepts)
  local buf = transfer.buf
  while true do
    local n, truncated = transfer.sock:receive(buf:resize(buf.capacity))
    local opcode, number = message.parse_head(buf:resize(n))
    if opcode == OPCODE.ERROR then error("the client gave up: " .. message.error_text(buf), 0) end
    if opcode == OPCODE.DATA and truncated then refuse(ERROR.ILLEGAL, "a block is too long") end
    local result = opcode and accepts(opcode, number, buf)
    if result then return result end
  end
end

local function is_over_time(err)
  return err == ip.error.ETIMEDOUT and err.operation == "with_timeout"
end

-- Sends a packet, again and again, until its answer comes.
local function exchange(transfer, packet, accepts)
  for _ = 1, transfer.retries do
    local answer = AGAIN
    transfer.sock:send(packet)
    while answer == AGAIN do
      local ok, result = pcall(fiber.with_timeout, transfer.timeout, await, transfer, accepts)
      if not ok and not is_over_time(result) then error(result, 0) end
      answer = ok and result or nil
      if answer == AGAIN then transfer.sock:send(packet) end
    end
    if answer then return answer end
  end
  error("no answer", 0)
end

-- An acknowledgement of another block is not answered: to send the block again for each would double the traffic for
-- the rest of the transfer ("sorcerer's apprentice", RFC 1123, 4.2.3.1).
local function acknowledges(number)
  return function(opcode, its_number) return opcode == OPCODE.ACK and its_number == number end
end

-- The block before comes again where its acknowledgement was lost.
local function brings(number)
  return function(opcode, its_number, packet)
    if opcode ~= OPCODE.DATA then return nil end
    if its_number == number then return packet:sub(message.HEAD_SIZE + 1) end
    return its_number == (number - 1 & 0xFFFF) and AGAIN or nil
  end
end

-- --- transfers ---

-- read(size) returns the next bytes of the file: fewer than `size` at its end.
local function send_file(transfer, read, agreed)
  if agreed then exchange(transfer, agreed, acknowledges(0)) end
  local number = 0
  repeat
    local block = read(transfer.block_size)
    number = number + 1 & 0xFFFF -- large files use the numbers again
    exchange(transfer, { message.data_head(number), block }, acknowledges(number))
  until #block < transfer.block_size
end

-- Returns the client's next request, or AGAIN where it sends the last block again.
local function await_request(transfer, answer, number)
  transfer.sock:send(answer)
  while true do
    if fiber.wait_any(transfer.session, transfer.sock) == transfer.session then
      return (transfer.session:receive_string())
    end
    local n = transfer.sock:receive(transfer.buf:resize(transfer.buf.capacity))
    local opcode, its_number = message.parse_head(transfer.buf:resize(n))
    if opcode == OPCODE.DATA and its_number == number then return AGAIN end
  end
end

-- Acknowledges the last block, and stays a while for a client that has not got that. The client's next request ends
-- the stay, and is returned: one that has several files for the server may send all from one port.
local function stay(transfer, answer, number)
  repeat until not transfer.session:try_receive_string() -- the same request again
  local ok, request
  repeat
    ok, request = pcall(fiber.with_timeout, transfer.timeout, await_request, transfer, answer, number)
  until request ~= AGAIN
  return ok and request or nil
end

-- write(data) writes bytes of the file; done() is called before the last block is acknowledged. Returns the client's
-- next request where that has come.
local function receive_file(transfer, write, done, agreed)
  local number, answer = 0, agreed or message.ack(0)
  repeat
    number = number + 1 & 0xFFFF
    local block = exchange(transfer, answer, brings(number))
    write(block)
    answer = message.ack(number)
  until #block < transfer.block_size
  done()
  return stay(transfer, answer, number)
end

local function checked_write(file)
  return function(data)
    if not file:write(data) then refuse(ERROR.FULL, "cannot write the file") end
  end
end

-- Takes what the client proposes and this server supports.
local function negotiate(transfer, request, size)
  local agreed = {}
  for _, option in ipairs(request.options) do
    local value = option.value:find("^%d+$") and math.tointeger(tonumber(option.value)) -- no hexadecimal numbers
    if option.name == "blksize" and value and value >= 8 and value <= 65464 then
      transfer.block_size = value
      agreed[#agreed + 1] = option
    elseif option.name == "timeout" and value and value >= 1 and value <= 255 then
      transfer.timeout = value
      agreed[#agreed + 1] = option
    elseif option.name == "tsize" and value and size then -- a client that sends a file says itself how long it is
      agreed[#agreed + 1] = { name = "tsize", value = request.opcode == OPCODE.RRQ and size or value }
    end
  end
  transfer.buf = byte_span.new(transfer.block_size + message.HEAD_SIZE)
  return agreed[1] and message.option_ack(agreed)
end

-- Returns the function that does what a request wants, and returns the client's next request if that has come.
local function transfer_of(request)
  local netascii = request.mode == "netascii"
  local path = path_of(request.name)
  if request.opcode == OPCODE.RRQ then
    local file, size = open_source(path)
    return function(transfer)
      local source <close> = file
      local read = function(count) return source:read(count) or "" end
      -- How long a text becomes is not known before; and curl takes the size of an empty file for an error.
      local agreed = negotiate(transfer, request, not netascii and size > 0 and size or nil)
      send_file(transfer, netascii and message.netascii_reader(read) or read, agreed)
    end
  end
  local sink = open_sink(path)
  return function(transfer)
    local closing <close> = sink
    local write, rest = checked_write(closing.file), nil
    if netascii then write, rest = message.netascii_writer(write) end
    return receive_file(transfer, write, function()
      if rest then rest() end
      complete(closing)
    end, negotiate(transfer, request, 0))
  end
end

-- A client chooses names and modes: what a terminal would not print could forge lines of the log.
local function printable(text)
  return (text:gsub("[^ -~]", function(byte) return ("\\x%02X"):format(byte:byte()) end))
end

local function report(session, request, result)
  local verb = request.opcode == OPCODE.RRQ and "read" or "write"
  local name = printable(request.name:gsub('["\\]', "\\%0"))
  print(('%s %s "%s": %s'):format(ip.tostring(session.remote_address, session.remote_port), verb, name,
    printable(result)))
  io.stdout:flush()
end

local function run(session, sock, request)
  local transfer = { session = session, sock = sock, timeout = options.timeout, retries = options.retries,
    block_size = 512 }
  if request.mode ~= "octet" and request.mode ~= "netascii" then refuse(ERROR.ILLEGAL, "mode " .. request.mode) end
  return transfer_of(request)(transfer)
end

-- Connects to the client from a port of its own; nil where that cannot be: a forged sender may be one that no route
-- leads to.
local function connect_to(session)
  local from = not options.address.is_unspecified and options.address or nil
  local ok, result = pcall(ip.udp.connect, session.remote_address, session.remote_port, { local_address = from })
  if ok then return result end
  return nil, result
end

-- Serves one request of a client; returns the client's next one where that has come.
local function serve_request(session, text)
  local request = message.parse_request(text)
  if request == nil then return nil end
  local sock <close>, problem = connect_to(session)
  if not sock then return report(session, request, "failed: " .. tostring(problem)) end
  local ok, result = pcall(run, session, sock, request)
  local problem_text = tostring(result)
  if not ok and type(result) == "table" then
    pcall(sock.send, sock, message.error_packet(result.code, result.text))
    problem_text = "refused: " .. result.text
  end
  report(session, request, ok and "complete" or "failed: " .. problem_text)
  return ok and result or nil
end

-- Serves one client. Its request comes through the session, and the transfer has a port of its own, as RFC 1350 wants
-- it. While it lasts, the session takes the client's repeated requests, which are not answered.
local function serve(client)
  local session <close> = client
  local text = session:receive_string()
  while text do text = serve_request(session, text) end
end

local function listen()
  local ok, result = pcall(ip.udp.listen, options.address, options.port, {
    max_sessions = options.transfers,
    session_capacity = 1,
    accept = function(_, _, data) return message.parse_request(data) ~= nil end,
  })
  if ok then return result end
  local endpoint = ip.tostring(options.address, options.port)
  io.stderr:write(("tftp_server.lua: cannot listen on %s: %s\n"):format(endpoint, result))
  os.exit(1, true)
end

local function serve_all(listener)
  for session in listener:sessions() do fiber.spawn(serve, session) end
end

command_line.run(function()
  local listener <close> = listen()
  print("listening on " .. ip.tostring(listener.local_address, listener.local_port))
  io.stdout:flush()
  fiber.run(serve_all, listener)
end)
