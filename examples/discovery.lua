--- Finds programs on the local network by multicast, and announces a program to others.
--- usage: lua5.4 discovery.lua --announce NAME
---        lua5.4 discovery.lua

package.path = (arg[0]:match("^.*/") or "./") .. "?.lua;" .. package.path

local command_line = require "command_line"
local ip = require "ip"

local GROUPS = { v4 = "239.255.76.85", v6 = "ff02::4c75" }
local ANY = { v4 = "0.0.0.0", v6 = "::" }
local LARGEST_NAME = 200

local function read_family(text)
  if GROUPS[text] then return text end
  return nil, "v4 or v6 expected"
end

local function read_name(text)
  if text:find("^[%w._ -]+$") and #text <= LARGEST_NAME then return text end
  return nil, ("1 to %d letters, digits, blanks, dots and dashes expected"):format(LARGEST_NAME)
end

local options = command_line.new {
  usage = "discovery.lua [--announce NAME] [options]",
  about = [[
With --announce, answers those who ask a multicast group for names, until Ctrl-C. Without it, asks
the group and prints the names that come back in time with the addresses they come from; the exit
code is 1 when there was none. On the loopback interface unless another one is given.]],
  options = {
    { name = "announce", value = "NAME", read = read_name, help = "the name to be found by" },
    { name = "interface", value = "NAME", default = "lo", help = "the network to be found or to look on" },
    { name = "family", value = "FAMILY", read = read_family, help = "v4 or v6; without it, both" },
    { name = "port", value = "PORT", read = command_line.remote_port, default = 9009, help = "the group's port" },
    { name = "wait", value = "SECONDS", read = command_line.seconds(false), default = 1,
      help = "how long to wait for answers" },
  },
}:parse(arg)

local QUESTION = "lua-ip discovery: who is there? "
local ANSWER = "lua-ip discovery: here is "
local TOKEN = ">I8"

local function complain(...)
  io.stderr:write("discovery.lua: ", ...)
  io.stderr:write("\n")
end

-- An error reported by the system concerns one datagram or one peer. Any other error is a mistake in this
-- program.
local function is_passing(err)
  if type(err) ~= "userdata" or err.category ~= "system" then return false end
  return err ~= ip.error.EBADF and err ~= ip.error.ECANCELED
end

-- Returns the sockets that `open(family)` opens, for the requested families that this machine has.
local function open_all(open)
  local sockets = {}
  for _, family in ipairs(options.family and { options.family } or { "v4", "v6" }) do
    local ok, result = pcall(open, family)
    if ok then
      sockets[family] = result
    else
      complain(("no %s on %s: %s"):format(family, options.interface, result))
    end
  end
  if next(sockets) == nil then os.exit(1, true) end
  return sockets
end

-- Returns a socket that sends to groups on the interface, and receives only unicast datagrams.
local function open_sender(family)
  return ip.udp.bind(ANY[family], 0, { multicast_interface = options.interface })
end

-- --- being found ---

-- Returns a socket that is bound to the group, so it receives only datagrams to the group. Several programs
-- may bind to it.
local function open_listener(family)
  return ip.udp.bind(GROUPS[family], options.port, { interface = options.interface, reuse_address = true })
end

-- Answers come from a separate socket, because a group cannot be a source address. The token shows which
-- question they answer.
local function answer(listener, sender)
  while true do
    local text, address, port = listener:receive_string(#QUESTION + 9)
    if #text == #QUESTION + 8 and text:sub(1, #QUESTION) == QUESTION then
      sender:send_to({ ANSWER, text:sub(-8), options.announce }, address, port)
    end
  end
end

local function answer_forever(listener, sender)
  local reported
  while true do
    local _, err = pcall(answer, listener, sender)
    if not is_passing(err) then error(err, 0) end
    if err ~= reported then complain(tostring(err)) end
    reported = err -- a series of equal errors is reported once
    ip.fiber.yield() -- an endless series of errors must not starve other fibers
  end
end

local function announce()
  local listeners = open_all(open_listener)
  local lines = {}
  for family, listener in pairs(listeners) do
    ip.fiber.spawn(answer_forever, listener, open_sender(family))
    lines[#lines + 1] = "listening on " .. ip.tostring(listener.local_address, listener.local_port)
  end
  table.sort(lines)
  print(table.concat(lines, "\n")) -- in one write, for scripts that wait for the line
  io.stdout:flush()
  ip.fiber.run()
end

-- --- finding ---

local function collect(sender, token, found)
  local prefix = ANSWER .. token
  while true do
    local text, address = sender:receive_string(#prefix + LARGEST_NAME)
    local name = text:sub(1, #prefix) == prefix and read_name(text:sub(#prefix + 1))
    local line = name and ("%s at %s"):format(name, address)
    if line and not found[line] then
      found[line] = true
      print(line)
    end
  end
end

-- Asks twice, because multicast datagrams can be lost, too. The fiber of each family runs until the time is
-- over.
local function ask(family, sender, found)
  local token = string.pack(TOKEN, math.random(0))
  local function run()
    for _ = 1, 2 do
      sender:send_to({ QUESTION, token }, GROUPS[family], options.port)
    end
    collect(sender, token, found)
  end
  local _, err = pcall(ip.fiber.with_timeout, options.wait, run)
  if err ~= ip.error.ETIMEDOUT then complain(("%s: %s"):format(family, err)) end
end

local function find()
  local found, askers = {}, {}
  for family, sender in pairs(open_all(open_sender)) do
    askers[#askers + 1] = ip.fiber.spawn(ask, family, sender, found)
  end
  for _, asker in ipairs(askers) do
    asker:join()
  end
  return next(found) ~= nil
end

command_line.run(options.announce and announce or find)
