-- What set_option and get_option promise: names, values, families, and that an option arrives in the system.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local support = require "spec.support"

local byte_span = ip.byte_span
local bound, pair = support.bound, support.pair
local with_loop = support.with_loop
local assert_raises, assert_bad_argument = assertions.assert_raises, assertions.assert_bad_argument
local is_linux, has_v6 = platform.is_linux, platform.has_v6
local it_linux, it_v6 = platform.it_linux, platform.it_v6

-- The kinds of sockets that options are tried on.
local kinds = {
  { name = "v4", any = "0.0.0.0" },
  { name = "v6", any = "::", v6_only = true },
  { name = "dual-stack", any = "::", v6_only = false },
}

-- An open socket of a kind, not bound yet.
local function open_socket(kind)
  local sock = ip.udp.socket.new()
  sock:open(kind.name == "v4" and "v4" or "v6")
  if kind.v6_only ~= nil then sock:set_option("v6_only", kind.v6_only) end
  return sock
end

local booleans = { "broadcast", "do_not_route", "reuse_address", "reuse_port", "multicast_loop" }
local integers = {
  { name = "unicast_hops", low = 1, high = 255 },
  { name = "multicast_hops", low = 0, high = 255 },
  { name = "traffic_class", low = 0, high = 255 },
}
local sizes = { "send_buffer_size", "receive_buffer_size" }
local get_only = {}
local everything = { "debug", "v6_only" }
if is_linux then
  for _, name in ipairs { "multicast_all", "receive_packet_info", "receive_hops", "receive_traffic_class",
    "receive_timestamp", "receive_errors", "receive_dropped", "receive_offload", "free_bind" } do
    booleans[#booleans + 1] = name
  end
  get_only = { "mtu", "dropped" }
  for _, name in ipairs { "busy_poll", "mark", "priority", "incoming_cpu", "max_pacing_rate", "transparent" } do
    everything[#everything + 1] = name
  end
end
for _, list in ipairs { booleans, sizes, get_only } do
  for _, name in ipairs(list) do everything[#everything + 1] = name end
end
for _, option in ipairs(integers) do everything[#everything + 1] = option.name end

for _, kind in ipairs(kinds) do
  local it_kind = kind.name == "v4" and it or it_v6

  describe("on a " .. kind.name .. " socket", function()
    for _, name in ipairs(booleans) do
      it_kind(name .. " is set and read back, before and after bind", with_loop(function()
        local sock <close> = open_socket(kind)
        for _ = 1, 2 do
          for _, value in ipairs { true, false, true } do
            assert.is_nil(sock:set_option(name, value))
            assert.equal(value, sock:get_option(name))
          end
          if sock.local_port == 0 then sock:bind(kind.any, 0) end
          assert.is_true(sock:get_option(name))
        end
      end))
    end

    for _, option in ipairs(integers) do
      it_kind(option.name .. " takes its whole range and nothing else, before and after bind", with_loop(function()
        local sock <close> = open_socket(kind)
        for _ = 1, 2 do
          for value = option.low, option.high do
            sock:set_option(option.name, value)
            assert.equal(value, sock:get_option(option.name))
          end
          sock:set_option(option.name, 7)
          for _, value in ipairs { option.low - 1, option.high + 1, -1, 1 << 32, (1 << 32) + 7, math.mininteger } do
            assert_bad_argument(2, "to 'set_option'", function() sock:set_option(option.name, value) end)
          end
          assert.equal(7, sock:get_option(option.name))
          assert.equal("integer", math.type(sock:get_option(option.name)))
          if sock.local_port == 0 then sock:bind(kind.any, 0) end
          assert.equal(7, sock:get_option(option.name))
        end
      end))
    end

    for _, name in ipairs(sizes) do
      it_kind(name .. " reads as what the system has granted", with_loop(function()
        local sock <close> = open_socket(kind)
        sock:set_option(name, 20000)
        local granted = sock:get_option(name)
        assert.is_true(granted >= 20000)
        sock:set_option(name, 0)
        local least = sock:get_option(name)
        assert.is_true(least < granted)
        sock:set_option(name, 0x7fffffff)
        assert.is_true(sock:get_option(name) >= granted)
        for _, value in ipairs { -1, 0x80000000, math.maxinteger } do
          assert_bad_argument(2, "to 'set_option'", function() sock:set_option(name, value) end)
        end
      end))
    end

    it_kind("what the system has by default is what is read", with_loop(function()
      local sock <close> = open_socket(kind)
      for _, name in ipairs { "debug", "broadcast", "do_not_route", "reuse_address", "reuse_port" } do
        assert.is_false(sock:get_option(name), name)
      end
      assert.equal(1, sock:get_option("multicast_hops"))
      assert.is_true(sock:get_option("multicast_loop"))
      assert.equal(0, sock:get_option("traffic_class"))
      assert.is_true(sock:get_option("unicast_hops") >= 1)
    end))

    it_kind("an option that was set stays set through connect and disconnect", with_loop(function()
      local sock <close> = open_socket(kind)
      sock:bind(kind.any, 0)
      sock:set_option("unicast_hops", 33)
      sock:set_option("traffic_class", 8)
      sock:connect(kind.name == "v4" and "127.0.0.1" or "::1", support.dead_port())
      assert.equal(33, sock:get_option("unicast_hops"))
      sock:disconnect()
      assert.equal(33, sock:get_option("unicast_hops"))
      assert.equal(8, sock:get_option("traffic_class"))
    end))
  end)
end

describe("set_option and get_option", function()
  it("raise ENOTSUP for a name they do not know", with_loop(function()
    local sock <close> = bound()
    for _, name in ipairs { "no_such_option", "", "Broadcast", "broadcast ", "broadcast\0", "SO_BROADCAST" } do
      assert_raises("ENOTSUP", nil, sock.set_option, sock, name, true)
      assert_raises("ENOTSUP", nil, sock.set_option, sock, name)
      assert_raises("ENOTSUP", nil, sock.get_option, sock, name)
    end
  end))

  it("refuse a name that is no string", with_loop(function()
    local sock <close> = bound()
    for _, name in ipairs { 1, true, {}, byte_span.new(1) } do
      assert_bad_argument(1, "to 'set_option'", function() sock:set_option(name, true) end)
      assert_bad_argument(1, "to 'get_option'", function() sock:get_option(name) end)
    end
    assert_bad_argument(1, "to 'set_option'", function() sock:set_option() end)
    assert_bad_argument(1, "to 'get_option'", function() sock:get_option() end)
  end))

  it("raise EBADF on a socket that is not open, before they look at their arguments", with_loop(function()
    local closed = bound()
    closed:close()
    for _, sock in ipairs { closed, ip.udp.socket.new() } do
      for _, name in ipairs(everything) do
        assert_raises("EBADF", nil, sock.get_option, sock, name)
        assert_raises("EBADF", nil, sock.set_option, sock, name, {})
      end
      assert_raises("EBADF", nil, sock.get_option, sock, 5)
      assert_raises("EBADF", nil, sock.set_option, sock, "no_such_option")
    end
  end))

  for _, name in ipairs(get_only) do
    it("raise ENOTSUP when " .. name .. " is set", with_loop(function()
      local sock, peer = pair()
      for _, value in ipairs { 0, 1500, true } do assert_raises("ENOTSUP", nil, sock.set_option, sock, name, value) end
      assert_raises("ENOTSUP", nil, sock.set_option, sock, name)
      assert.equal("integer", math.type(sock:get_option(name)))
      assert.is_true(peer.is_open)
    end))
  end

  local boolean_names = { "debug", "v6_only", table.unpack(booleans) }
  for _, name in ipairs(boolean_names) do
    local it_name = name == "v6_only" and it_v6 or it
    it_name("refuse for " .. name .. " what is no boolean", with_loop(function()
      local sock <close> = ip.udp.socket.new()
      sock:open(name == "v6_only" and "v6" or "v4")
      local before = sock:get_option(name)
      for _, value in ipairs { 0, 1, "true", "", {}, print } do
        assert_bad_argument(2, "to 'set_option'", function() sock:set_option(name, value) end)
      end
      assert_bad_argument(2, "to 'set_option'", function() sock:set_option(name) end)
      assert_bad_argument(2, "to 'set_option'", function() sock:set_option(name, nil) end)
      assert.equal(before, sock:get_option(name))
    end))
  end

  local integer_names = { table.unpack(sizes) }
  for _, option in ipairs(integers) do integer_names[#integer_names + 1] = option.name end
  if is_linux then
    for _, name in ipairs { "busy_poll", "segment_size", "mark", "priority", "incoming_cpu", "max_pacing_rate" } do
      integer_names[#integer_names + 1] = name
    end
  end
  for _, name in ipairs(integer_names) do
    it("refuse for " .. name .. " what is no integer", with_loop(function()
      local sock <close> = bound()
      for _, value in ipairs { 1.5, "7", "", true, {}, 0 / 0, math.huge, 2 ^ 63 } do
        assert_bad_argument(2, "to 'set_option'", function() sock:set_option(name, value) end)
      end
      if name == "max_pacing_rate" then return end -- nil is no limit
      assert_bad_argument(2, "to 'set_option'", function() sock:set_option(name) end)
    end))
  end

  it("take a float that is an integer", with_loop(function()
    local sock <close> = bound()
    sock:set_option("unicast_hops", 12.0)
    assert.equal(12, sock:get_option("unicast_hops"))
  end))
end)

describe("broadcast", function()
  it("is what makes the system send to broadcast addresses", with_loop(function()
    local sock <close> = ip.udp.bind("0.0.0.0", 0)
    assert_raises("EACCES", nil, sock.send_to, sock, "x", "127.255.255.255", 9)
    sock:set_option("broadcast", true)
    assert.equal(1, sock:send_to("x", "127.255.255.255", 9))
    sock:set_option("broadcast", false)
    assert_raises("EACCES", nil, sock.send_to, sock, "x", "127.255.255.255", 9)
  end))
end)

describe("reuse_port", function()
  it("lets two sockets have one port, if both set it", with_loop(function()
    local first <close> = ip.udp.bind("127.0.0.1", 0, { reuse_port = true })
    local second <close> = ip.udp.bind("127.0.0.1", first.local_port, { reuse_port = true })
    assert.equal(first.local_port, second.local_port)
    local third <close> = ip.udp.socket.new()
    assert_raises("EADDRINUSE", nil, third.bind, third, "127.0.0.1", first.local_port)
  end))

  it("gives each datagram to one of the two", with_loop(function()
    local first <close> = ip.udp.bind("127.0.0.1", 0, { reuse_port = true })
    local port = first.local_port
    local second <close> = ip.udp.bind("127.0.0.1", port, { reuse_port = true })
    local buf, count = byte_span.new(8), 0
    for _ = 1, 20 do
      local client <close> = bound()
      client:send_to("x", "127.0.0.1", port)
    end
    for _, sock in ipairs { first, second } do
      while sock:try_receive(buf) do count = count + 1 end
    end
    assert.equal(20, count)
  end))
end)

describe("reuse_address", function()
  it_linux("lets two sockets have one port on Linux, if both set it", with_loop(function()
    local first <close> = ip.udp.bind("127.0.0.1", 0, { reuse_address = true })
    local second <close> = ip.udp.bind("127.0.0.1", first.local_port, { reuse_address = true })
    assert.equal(first.local_port, second.local_port)
    local third <close> = ip.udp.socket.new()
    assert_raises("EADDRINUSE", nil, third.bind, third, "127.0.0.1", first.local_port)
  end))
end)

describe("v6_only", function()
  it("raises ENOTSUP on a v4 socket, read or written", with_loop(function()
    local sock <close> = bound()
    assert_raises("ENOTSUP", nil, sock.get_option, sock, "v6_only")
    assert_raises("ENOTSUP", nil, sock.set_option, sock, "v6_only", true)
  end))

  it_v6("decides whether the port is taken for v4 as well", with_loop(function()
    local v6 <close> = ip.udp.bind("::", 0, { v6_only = true })
    assert.is_true(v6:get_option("v6_only"))
    local v4 <close> = ip.udp.bind("0.0.0.0", v6.local_port)
    assert.equal(v6.local_port, v4.local_port)
    local dual <close> = ip.udp.bind("::", 0, { v6_only = false })
    assert.is_false(dual:get_option("v6_only"))
    local late <close> = ip.udp.socket.new()
    assert_raises("EADDRINUSE", nil, late.bind, late, "0.0.0.0", dual.local_port)
  end))

  it_v6("is the system's default to begin with", with_loop(function()
    local file = io.open("/proc/sys/net/ipv6/bindv6only")
    local expected = file ~= nil and file:read("n") == 1
    if file ~= nil then file:close() end
    local sock <close> = ip.udp.socket.new()
    sock:open("v6")
    if file ~= nil then assert.equal(expected, sock:get_option("v6_only")) end
    assert.equal("boolean", type(sock:get_option("v6_only")))
  end))

  it_v6("cannot be changed once the socket is bound", with_loop(function()
    local sock <close> = ip.udp.bind("::", 0, { v6_only = false })
    assert_raises("EINVAL", nil, sock.set_option, sock, "v6_only", true)
    assert.is_false(sock:get_option("v6_only"))
  end))
end)

describe("mtu", function()
  -- What the system says about the loopback interface.
  local function mtu_of_loopback()
    local file = io.open("/sys/class/net/lo/mtu")
    if file == nil then return nil end
    local mtu = file:read("n")
    file:close()
    return mtu
  end
  local it_mtu = is_linux and mtu_of_loopback() ~= nil and it or pending

  it_linux("raises ENOTCONN while the socket is not connected", with_loop(function()
    local sock, peer = pair()
    assert.is_true(sock:get_option("mtu") > 0)
    sock:disconnect()
    assert_raises("ENOTCONN", nil, sock.get_option, sock, "mtu")
    local fresh <close> = bound()
    assert_raises("ENOTCONN", nil, fresh.get_option, fresh, "mtu")
    assert.is_true(peer.is_open)
  end))

  it_mtu("is that of the path to the peer", with_loop(function()
    local expected = math.min(mtu_of_loopback(), 65535) -- a v4 path cannot take more (ip(7))
    local sock, peer = pair()
    assert.equal(expected, math.min(sock:get_option("mtu"), 65535))
    assert.is_true(peer.is_open)
  end))

  it_mtu(has_v6 and "is that of the path over v6" or "is that of the path over v6 (no v6 here)", with_loop(function()
    if not has_v6 then return end
    local sock, peer = pair("v6")
    assert.equal(mtu_of_loopback(), sock:get_option("mtu"))
    assert.is_true(peer.is_open)
    local unconnected <close> = bound("v6")
    assert_raises("ENOTCONN", nil, unconnected.get_option, unconnected, "mtu")
    local mapped <close> = ip.udp.socket.new()
    mapped:open("v6")
    mapped:connect("127.0.0.1", support.dead_port())
    assert.equal(math.min(mtu_of_loopback(), 65535), math.min(mapped:get_option("mtu"), 65535))
  end))
end)

describe("dropped", function()
  it_linux("counts the datagrams that found no room", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_buffer_size = 0 })
    assert.equal(0, sock:get_option("dropped"))
    local client <close> = ip.udp.connect("127.0.0.1", sock.local_port)
    local sent, received, buf = 200, 0, byte_span.new(16)
    for _ = 1, sent do assert(client:try_send("x")) end
    local dropped = sock:get_option("dropped")
    assert.is_true(dropped > 0)
    while sock:try_receive(buf) do received = received + 1 end
    assert.equal(sent, dropped + received)
    for _ = 1, sent do assert(client:try_send("x")) end
    assert.is_true(sock:get_option("dropped") > dropped)
    assert.equal(0, client:get_option("dropped"))
  end))

  for _, option in ipairs { "coalesce", "receive_offload" } do
    it_linux("is a lower bound with " .. option, with_loop(function()
      local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_buffer_size = 4096, receive_dropped = true })
      sock:set_option(option, true)
      local client <close> = ip.udp.connect("127.0.0.1", sock.local_port)
      for _ = 1, 20 do client:send_message(("x"):rep(10000), { segment_size = 1000 }) end
      local received, buf = 0, byte_span.new(65535)
      while sock:try_receive(buf) do received = received + 1 end
      local dropped = sock:get_option("dropped")
      assert.is_true(dropped > 0 and dropped <= 200 - received, dropped .. " of " .. 200 - received)
      client:send("last")
      local _, info = sock:receive_message(buf)
      assert.equal(dropped, info.dropped)
    end))
  end

  it_linux("stays 0 while everything is received", with_loop(function()
    local a, b = pair()
    for _ = 1, 100 do
      a:send("x")
      b:receive_string()
    end
    assert.equal(0, b:get_option("dropped"))
  end))
end)

describe("debug", function()
  it("is set, or refused by the system to those who may not", with_loop(function()
    local sock <close> = bound()
    local ok, err = pcall(sock.set_option, sock, "debug", true)
    if not ok then assert.equal(ip.error.EACCES, err) end
    assert.equal(ok, sock:get_option("debug"))
  end))
end)

describe("busy_poll", function()
  it_linux("takes microseconds where the system has it, and else raises ENOTSUP", with_loop(function()
    local sock <close> = bound()
    local ok, value = pcall(sock.get_option, sock, "busy_poll")
    if not ok then
      assert.equal(ip.error.ENOTSUP, value)
      assert_raises("ENOTSUP", nil, sock.set_option, sock, "busy_poll", 50)
      return
    end
    assert.equal("integer", math.type(value))
    sock:set_option("busy_poll", 0)
    assert.equal(0, sock:get_option("busy_poll"))
    local set, err = pcall(sock.set_option, sock, "busy_poll", 50)
    if not set then assert.equal(ip.error.EPERM, err) end
    assert.equal(set and 50 or 0, sock:get_option("busy_poll"))
    assert_bad_argument(2, "to 'set_option'", function() sock:set_option("busy_poll", -1) end)
  end))
end)

-- Another look at the kernel ------------------------------------------------------------------------------------

-- Asks the kernel about a descriptor of this process from another one (spec/host/peek_option.c), for a list of
-- { level, number }; gives the values, or nil where that cannot be done.
local function ask_kernel(sock, questions)
  local directory, stat = os.getenv("LUA_IP_BUILD"), io.open("/proc/self/stat")
  if stat == nil then return nil end
  local pid = stat:read("n")
  stat:close()
  if directory == nil then return nil end
  local words = {}
  for i, question in ipairs(questions) do words[i] = question[1] .. ":" .. question[2] end
  local pipe = assert(io.popen(("%s/peek_option %d %d %s 2>/dev/null"):format(
    directory, pid, sock.native_handle, table.concat(words, " "))))
  local answers = {}
  for line in pipe:lines() do answers[#answers + 1] = tonumber(line) end
  return pipe:close() and answers or nil
end

describe("an independent look at the kernel", function()
  local probe = bound()
  local machine = io.popen("uname -m"):read("l")
  local usual_numbers = machine == "x86_64" or machine == "aarch64" -- others number socket options differently
  local can_ask = usual_numbers and ask_kernel(probe, { { 0, 2 } }) ~= nil
  probe:close()
  local it_asked = can_ask and it or function(name) pending(name .. " (needs host programs, and pidfd_getfd)") end

  -- Level and number of each option in the two families on Linux.
  local v4_numbers = {
    unicast_hops = { 0, 2 }, multicast_hops = { 0, 33 }, multicast_loop = { 0, 34 }, traffic_class = { 0, 1 },
    multicast_all = { 0, 49 },
  }
  local v6_numbers = {
    unicast_hops = { 41, 16 }, multicast_hops = { 41, 18 }, multicast_loop = { 41, 19 }, traffic_class = { 41, 67 },
    multicast_all = { 41, 29 },
  }
  local socket_numbers = {
    broadcast = { 1, 6 }, do_not_route = { 1, 5 }, reuse_address = { 1, 2 }, reuse_port = { 1, 15 },
  }
  local values = {
    unicast_hops = 77, multicast_hops = 5, multicast_loop = false, traffic_class = 0x28, multicast_all = false,
    broadcast = true, do_not_route = true, reuse_address = true, reuse_port = true,
  }

  local function to_number(value)
    if type(value) == "boolean" then return value and 1 or 0 end
    return value
  end

  -- Sets everything and compares with what another process reads, for the options in `expected` (name -> value)
  -- under the numbers of one family.
  local function check(sock, numbers, expected)
    local names, questions = {}, {}
    for name, number in pairs(numbers) do
      names[#names + 1] = name
      questions[#questions + 1] = number
    end
    local answers = assert(ask_kernel(sock, questions))
    for i, name in ipairs(names) do
      local value = expected[name]
      assert.equal(name .. " = " .. to_number(value), name .. " = " .. answers[i])
    end
  end

  -- What the v4 options of a v6 socket are to begin with.
  local untouched = { multicast_hops = 1, multicast_loop = true, traffic_class = 0 }

  for _, kind in ipairs(kinds) do
    for _, moment in ipairs { "before", "after" } do
      local it_kind = (kind.name == "v4" or has_v6) and it_asked or pending

      it_kind("finds all options of a " .. kind.name .. " socket that was bound " .. moment, with_loop(function()
        local sock <close> = open_socket(kind)
        if moment == "before" then sock:bind(kind.any, 0) end
        for name, value in pairs(values) do sock:set_option(name, value) end
        if moment == "after" then sock:bind(kind.any, 0) end
        check(sock, socket_numbers, values)
        if kind.name ~= "v6" then check(sock, v4_numbers, values) end
        if kind.name ~= "v4" then check(sock, v6_numbers, values) end
        if kind.name == "v6" then
          local of_v4 = {}
          for name, number in pairs(v4_numbers) do
            if untouched[name] ~= nil then of_v4[name] = number end
          end
          check(sock, of_v4, untouched) -- no v4 traffic: nothing to set
        end
      end))
    end
  end

  it_asked("finds the sizes that get_option tells", with_loop(function()
    local sock <close> = bound()
    sock:set_option("send_buffer_size", 30000)
    sock:set_option("receive_buffer_size", 40000)
    local answers = ask_kernel(sock, { { 1, 7 }, { 1, 8 } })
    assert.equal(answers[1], sock:get_option("send_buffer_size"))
    assert.equal(answers[2], sock:get_option("receive_buffer_size"))
  end))

  local has_ss = is_linux and os.execute("env -u LD_PRELOAD ss -uanm >/dev/null 2>&1") == true
  local it_seen = has_ss and it or pending

  it_seen("finds buffer sizes and drops in ss", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { receive_buffer_size = 0, send_buffer_size = 30000 })
    local port = sock.local_port
    local client <close> = ip.udp.connect("127.0.0.1", port)
    for _ = 1, 50 do assert(client:try_send("x")) end
    local pipe = assert(io.popen(("env -u LD_PRELOAD ss -uanmO src 127.0.0.1:%d"):format(port)))
    local text = pipe:read("a")
    pipe:close()
    assert.equal(sock:get_option("receive_buffer_size"), tonumber(text:match("rb(%d+)")), text)
    assert.equal(sock:get_option("send_buffer_size"), tonumber(text:match("tb(%d+)")), text)
    assert.equal(sock:get_option("dropped"), tonumber(text:match(",d(%d+)%)")), text)
    assert.is_true(sock:get_option("dropped") > 0)
  end))
end)
