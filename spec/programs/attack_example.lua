-- Attacks one example, in a network namespace (spec/hostile_example_spec.lua): malformed packets to each of its
-- sockets, from its peers and from others, and forged ICMP errors. A server has to answer its next right packet; a
-- client has to end with an exit code that it documents. Neither may show a traceback. IPv4.
-- usage: attack_example.lua EXAMPLE RAW_SENDER

local name, raw_sender = arg[1], "exec env LD_PRELOAD= " .. arg[2]
local ip = require "ip"
local examples = require "spec.support.examples"
local process = require "spec.support.process"
local fiber = ip.fiber

math.randomseed(#name)

-- --- malformed packets ---

local mutations = {
  function(text) return text:sub(1, math.random(0, #text)) end, -- cut
  function(text) return text .. text:sub(math.random(0, #text)) .. ("\0"):rep(math.random(0, 30)) end, -- too long
  function(text) -- some bytes are others
    local bytes = { text:byte(1, -1) }
    for _ = 1, math.random(1, 6) do
      if #bytes > 0 then bytes[math.random(#bytes)] = math.random(0, 255) end
    end
    return string.char(table.unpack(bytes))
  end,
  function(text) -- a field at its limits
    local position = math.random(0, #text)
    local field = string.rep(({ "\255", "\0", "\192\12", "\127" })[math.random(4)], math.random(1, 8))
    return text:sub(1, position) .. field .. text:sub(position + #field + 1)
  end,
  function() -- noise
    local bytes = {}
    for i = 1, math.random(0, 500) do bytes[i] = string.char(math.random(0, 255)) end
    return table.concat(bytes)
  end,
}

local function malformed(text)
  return mutations[math.random(#mutations)](text):sub(1, 900)
end

-- --- who sends them ---

local own = {} -- ports of this program, which nobody attacks

local function open(...)
  local sock = ip.udp.bind("127.0.0.1", ...)
  sock.receive_timeout = 0.2
  own[sock.local_port] = true
  return sock
end

local client = open(0)

local function address_of(hexadecimal)
  return tostring(ip.address.from_bytes(string.pack("<I4", tonumber(hexadecimal, 16))))
end

-- The sockets of the example: address, port, and those of the peer, where there is one.
local function targets()
  local found = {}
  for line in io.lines "/proc/net/udp" do
    local address, port, peer, peer_port = line:match("^%s*%d+: (%x+):(%x+) (%x+):(%x+)")
    port = port and tonumber(port, 16)
    if port and not own[port] then
      local to = address_of(address)
      if to == "0.0.0.0" then to = "127.0.0.1" end
      found[#found + 1] = { to = to, port = port, peer = address_of(peer), peer_port = tonumber(peer_port, 16) }
    end
  end
  return found
end

-- Senders of all kinds: those that nobody can answer, and those behind closed ports.
local strangers = { { "127.0.0.1", 0 }, { "203.0.113.1", 7 }, { "255.255.255.255", 7 }, { "127.0.0.9", 9 } }

local function attack(samples, rounds)
  local stream <close> = assert(io.popen(raw_sender .. " stream", "w"))
  for _ = 1, rounds do
    for _, target in ipairs(targets()) do
      for _, sample in ipairs(samples) do
        local from = strangers[math.random(#strangers)]
        if target.peer_port ~= 0 then from = { target.peer, target.peer_port } end
        local text = math.random(10) > 1 and malformed(sample) or sample:sub(1, 900)
        stream:write(("%s %d %s %d %s\n"):format(from[1], from[2], target.to, target.port,
          (text:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))))
      end
    end
    stream:flush()
    fiber.sleep(0.002)
  end
end

local function storm()
  for _, target in ipairs(targets()) do
    local port = target.peer_port ~= 0 and target.peer_port or 33434
    os.execute(raw_sender .. (" storm 60 127.0.0.1 %d 127.0.0.1 %d"):format(target.port, port))
  end
end

-- --- servers ---

-- Asks until the answer satisfies is_right(text, port).
local function ask(port, question, is_right, host)
  for _ = 1, 60 do
    pcall(client.send_to, client, question, host or "127.0.0.1", port)
    for _ = 1, 50 do
      local ok, text, _, from = pcall(client.receive_string, client)
      if not ok then break end
      if is_right(text, from) then return end
    end
  end
  error("it does not answer a right question", 0)
end

local function starts_with(prefix)
  return function(text) return text:sub(1, #prefix) == prefix end
end

local QUERY = "\18\52\1\0\0\1\0\0\0\0\0\0\3www\7example\4test\0\0\1\0\1"
local EDNS_QUERY = "\18\52\1\0\0\1\0\0\0\0\0\1\4long\7example\4test\0\0\16\0\1\0\0\41\4\208\0\0\0\0\0\0"
local ANSWER = "\18\52\132\0\0\1\0\1\0\0\0\0\3www\7example\4test\0\0\1\0\1\192\12\0\1\0\1\0\0\1\0\0\4\1\2\3\4"
local SNTP = "\35" .. ("\0"):rep(39) .. "12345678"
local FLOW = ">I4 I4 I8 d"
local DATA, END, REPORT = 0x62774431, 0x62774531, 0x62775231
local QUESTION, HERE = "lua-ip discovery: who is there? ", "lua-ip discovery: here is "

local function is_echo(text) return text == "a right question" end

local function echoes(port) ask(port, "a right question", is_echo) end

local function ends_a_run(port)
  for _ = 1, 100 do -- another run may hold the receiver for two seconds
    pcall(client.send_to, client, string.pack(FLOW, DATA, 99, 1, 1.0), "127.0.0.1", port)
    pcall(client.send_to, client, string.pack(FLOW, END, 99, 1, 1.0), "127.0.0.1", port)
    local ok, text = pcall(client.receive_string, client)
    if ok and #text > 8 and text:sub(1, 8) == string.pack(">I4 I4", REPORT, 99) then return end
  end
  error("it does not answer a right run", 0)
end

local function bandwidth(mode)
  return {
    words = { "bandwidth", "--port", "0", "--mode", mode, "--interval", "0.05" },
    samples = { string.pack(FLOW, DATA, 7, 1, 1.0), string.pack(FLOW, END, 7, 1, 1.0),
      string.pack(FLOW, DATA, 7, -1, 0 / 0), string.pack(FLOW, DATA, 8, 1, math.huge) },
    check = ends_a_run,
  }
end

local servers = {
  dns_server = { words = { "dns_server", "--port", "0" }, samples = { QUERY, EDNS_QUERY, ANSWER },
    check = function(port) ask(port, QUERY, starts_with(QUERY:sub(1, 2))) end },
  sntp_server = { words = { "sntp_server", "--port", "0" }, samples = { SNTP },
    check = function(port)
      ask(port, SNTP, function(text) return #text == 48 and text:sub(25, 32) == "12345678" end)
    end },
  echo_server = { words = { "echo_server", "--port", "0" }, samples = { "question" }, check = echoes },
  workers = { words = { "workers", "--serve", "--workers", "2" },
    samples = { "question", string.pack("I4 I8 d", 1, 2, 3), string.pack("I4 I8 d", 77, -1, 0 / 0) }, check = echoes },
  udp_relay = { words = { "udp_relay", "--port", "0", "--to", "127.0.0.1", "--to-port", "9999", "--idle", "0.3" },
    samples = { "question" }, check = echoes,
    prepare = function()
      local sock = open(9999)
      sock.receive_timeout = nil
      fiber.spawn(sock.serve, sock, function(data) return data end):detach()
    end },
  tftp_server = { words = { "tftp_server", "--port", "0", "--root", "examples", "--timeout", "0.1", "--retries", "2" },
    samples = { "\0\1README\0octet\0", "\0\1workers.lua\0octet\0blksize\0001024\0tsize\0000\0timeout\0001\0",
      "\0\2new\0netascii\0", "\0\4\0\1", "\0\4\0\0", "\0\3\0\1data", "\0\5\0\1no\0" },
    check = function(port) ask(port, "\0\1workers.lua\0octet\0", starts_with "\0\3\0\1") end },
  ["discovery announce"] = { words = { "discovery", "--announce", "right", "--family", "v4" },
    samples = { QUESTION .. "12345678", QUESTION .. "1234567", HERE .. "12345678right" }, port = 9009,
    check = function(port)
      client:set_option("multicast_interface", "lo")
      for _ = 1, 50 do client:send_to(malformed(QUESTION .. "12345678"), "239.255.76.85", port) end
      ask(port, QUESTION .. "12345678", starts_with(HERE .. "12345678right"), "239.255.76.85")
    end },
}
for _, mode in ipairs { "plain", "batch", "coalesce", "segments" } do
  servers["bandwidth " .. mode] = bandwidth(mode)
end

local function attack_server(case)
  if case.prepare then case.prepare() end
  local server <close>, port = examples.start_server(table.unpack(case.words))
  port = case.port or port
  for _ = 1, 3 do
    attack(case.samples, 40)
    storm()
  end
  local ok, problem = pcall(case.check, port)
  local errors = server:errors()
  assert(ok and server:is_running() and not errors:find("traceback", 1, true), tostring(problem) .. errors)
  assert(#errors < 20000, "it complains without an end: " .. errors:sub(1, 200))
end

-- --- clients ---

local PATH = { words = function() return { "127.0.0.1", "--port", "9999", "--timeout", "0.1" } end,
  answer = function(text) return text end, samples = { "a probe" } }
local clients = {
  dns_lookup = { words = function() return { "--port", "9999", "--timeout", "0.2", "--type", "A,TXT,AAAA",
      "www.example.test" } end,
    answer = function(text) return text:sub(1, 2) .. ANSWER:sub(3) end, samples = { ANSWER } },
  echo_client = { words = function() return { "--port", "9999", "--timeout", "0.05", "--count", "20" } end,
    answer = function(text) return text end, samples = { ("x"):rep(64) } },
  path_mtu = PATH,
  traceroute = { words = function() return { "127.0.0.1", "--port", "9990", "--timeout", "0.1", "--max-hops", "4" } end,
    answer = PATH.answer, samples = PATH.samples },
  ["bandwidth sender"] = { words = function() return { "--to", "127.0.0.1", "--port", "9999", "--seconds", "0.2",
      "--rate", "200K" } end,
    answer = function(text)
      local kind, run = string.unpack(">I4 I4", text)
      if kind ~= END then return "nothing" end
      local worst = ({ 5e-324, 1 / 0, 0 / 0, -1.0 })[math.random(4)]
      return string.pack(">I4 I4 I8 I8 I8 I8 d d", REPORT, run, -1, 1 << 62, -5, -6, worst, worst)
    end,
    samples = { "report" } },
  ["discovery find"] = { words = function() return { "--family", "v4", "--wait", "0.5" } end,
    answer = function(text) return HERE .. text:sub(-8) .. "right\27" end, samples = { HERE .. "12345678right" },
    group = true, may_find_nothing = true },
}

-- Answers each request with malformed answers, and sometimes with what is nearly right.
local function answer_badly(sock, answer)
  while true do
    local ok, text, address, port = pcall(sock.receive_string, sock)
    if ok then
      for _ = 1, 5 do pcall(sock.send_to, sock, malformed(answer(text)), address, port) end
      if math.random(3) == 1 then pcall(sock.send_to, sock, answer(text), address, port) end
    elseif text == ip.error.ECANCELED or text == ip.error.EBADF then
      return
    end
  end
end

local function attack_client(case)
  local sock
  if case.group then
    sock = ip.udp.bind("239.255.76.85", 9009, { interface = "lo", reuse_address = true })
    own[9009] = true
    local sender = open(0)
    sender:set_option("multicast_loop", true)
    fiber.spawn(answer_badly, { receive_string = function() return sock:receive_string() end,
      send_to = function(_, ...) return sender:send_to(...) end }, case.answer):detach()
  else
    sock = open(9999)
    sock.receive_timeout = nil
    fiber.spawn(answer_badly, sock, case.answer):detach()
  end
  for _ = 1, 4 do
    local running <close> = process.start(examples.words(name:match("^%S+"), table.unpack(case.words())))
    for _ = 1, 400 do
      if not running:is_running() then break end
      attack(case.samples, 3)
      storm()
      fiber.sleep(0.01)
    end
    local code = running:wait(30)
    local errors = running:errors()
    assert(code <= 2 and not errors:find("traceback", 1, true), ("%d %s"):format(code, errors))
    assert(code == 0 or case.may_find_nothing or #errors + #running:output() > 0, "it ends without a message")
  end
end

fiber.run(fiber.with_timeout, 80, function()
  if servers[name] then return attack_server(servers[name]) end
  attack_client(assert(clients[name], name))
end)
os.exit(0)
