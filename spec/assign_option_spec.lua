-- What assign promises about the options of the descriptor: where the system does not say whether one is on, assign
-- raises that and leaves the descriptor with the caller. And what else does not take a failing question for "off".
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

local with_loop = support.with_loop

local is_linux = io.open("/proc/self/fdinfo/0") ~= nil

-- Counts the datagrams that an heir receives; joined ones would count as one.
local PROGRAM = [[
local ip = require "ip"
local maker = ip.udp.bind("127.0.0.1", 0, { receive_offload = true })
local port = maker.local_port
local fd = maker:release()
local heir = ip.udp.socket.new()
local ok, err = pcall(heir.assign, heir, "v4", fd)
if not ok then
  assert(not heir.is_open)
  print(err.name)
  heir:assign("v4", fd)
end
print(ok and "assigned" or "refused")
heir.receive_timeout = 1
local sender = ip.udp.socket.new()
sender:open("v4")
sender:send_message(("x"):rep(40), { address = "127.0.0.1", port = port, segment_size = 10 })
local sizes = {}
for i = 1, 4 do sizes[i] = #heir:receive_string() end
print(table.concat(sizes, " "))
]]

-- A datagram of v4 that the socket cannot send is refused by the call that sends it, with coalesce or without.
local QUEUEING_PROGRAM = [[
local ip = require "ip"
local made, sock = pcall(ip.udp.bind, "::", 0, { v6_only = true })
local set = made and pcall(sock.set_option, sock, "coalesce", true)
if not set then return print("refused") end
local ok, err = pcall(sock.send_to, sock, "x", "::ffff:127.0.0.1", 9)
print(ok and "queued" or err.name)
]]

-- strace(1) lets the n-th getsockopt of the program fail, or ("2+") all from the second on.
local function run_with_failure(path, n, error)
  local words = { "strace", "-qq", "-o", "/dev/null", "-e", "trace=getsockopt", "-e",
    ("inject=getsockopt:error=%s:when=%s"):format(error, n) }
  local lua = process.lua(path)
  table.move(lua, 1, #lua, #words + 1, words)
  local running <close> = process.start(words)
  running:wait(30)
  return running:output() .. running:errors()
end

local function can_trace()
  if not (is_linux and process.exists("strace")) then return false end
  return os.execute("LD_PRELOAD= strace -qq -o /dev/null -e inject=getsockopt:error=EIO true 2>/dev/null") == true
end

-- The sanitizers cannot look for leaks in a program that is traced.
local it_traced = can_trace() and os.getenv("LUA_IP_MODE") ~= "sanitize" and it or pending

describe("assign", function()
  local path

  lazy_setup(function() path = support.write_file(PROGRAM) end)

  lazy_teardown(function() os.remove(path) end)

  it_traced("raises what keeps the system from telling its options, at each of them", with_loop(function()
    local n, output = 0
    repeat
      n = n + 1
      output = run_with_failure(path, n, "ENOBUFS")
      assert.truthy(output:find("\n10 10 10 10\n", 1, true), output)
    until output:find("assigned", 1, true)
    assert.is_true(n > 6, output) -- the type, the protocol, and what parts of the socket know of
  end, 60))

  it_traced("takes an option that the system lacks for one that is off", with_loop(function()
    local refused = 0
    for n = 1, 8 do
      local output = run_with_failure(path, n, "ENOPROTOOPT")
      if output:find("refused", 1, true) then refused = refused + 1 end
    end
    assert.is_true(refused <= 2) -- a socket has a type and a protocol in any case
  end, 60))
end)

describe("coalesce", function()
  local it_there = platform.has_v6 and it_traced or pending

  it_there("does not queue for v4 where the system does not say whether the socket carries it", with_loop(function()
    local path = support.write_file(QUEUEING_PROGRAM)
    assert.equal("ENETUNREACH\n", run_with_failure(path, "2+", "ENOBUFS"))
    assert.equal("ENETUNREACH\n", run_with_failure(path, "9", "ENOBUFS"))
    os.remove(path)
  end, 60))
end)
