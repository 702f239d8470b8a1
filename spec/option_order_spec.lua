-- What ip.udp.bind and ip.udp.connect promise about a table of options: whatever its order, the socket is the same, and
-- what is wrong with it is named.
local ip = require "ip"
local core = require "ip.core"
local assertions = require "spec.support.assertions"
local options_of = require "ip.udp_options"
local ordered = require "spec.support.ordered"
local platform = require "spec.support.platform"
local support = require "spec.support"
local network = require "spec.support.namespaces"

local with_loop = support.with_loop
local assert_raises, assert_bad_argument = assertions.assert_raises, assertions.assert_bad_argument
local is_linux, has_v6 = platform.is_linux, platform.has_v6

-- The options that need a privilege.
local may_mark = is_linux and pcall(function()
  local sock <close> = ip.udp.bind("127.0.0.1", 0)
  sock:set_option("mark", 7)
  sock:set_option("transparent", true)
end)

-- A value for each option that this process may set.
local function values_for(kind)
  local values = {
    reuse_address = true, reuse_port = true, broadcast = true, do_not_route = true, multicast_loop = false,
    send_buffer_size = 30000, receive_buffer_size = 40000, unicast_hops = 9, multicast_hops = 3,
    traffic_class = 0x28, multicast_interface = "lo", coalesce = true, receive_timeout = 2, send_timeout = 3,
    on_truncation = "raise",
    join_multicast_group = kind.group, v6_only = kind.v6_only,
  }
  if is_linux then
    for name, value in pairs {
      bind_to_device = "lo", path_mtu_discovery = "do", multicast_all = false, receive_packet_info = true,
      receive_hops = true, receive_traffic_class = true, receive_timestamp = true, receive_errors = true,
      receive_dropped = true, receive_offload = true, segment_size = 1000, priority = 5, incoming_cpu = 0,
      max_pacing_rate = 100000000, free_bind = true, mark = may_mark and 7 or nil, transparent = may_mark or nil,
    } do
      values[name] = value
    end
  end
  return values
end

local kinds = {
  { name = "v4", any = "0.0.0.0", group = "239.255.7.9" },
  { name = "v6", any = "::", group = "ff02::7:9%lo", v6_only = true },
  { name = "dual-stack", any = "::", group = "ff02::7:9%lo", v6_only = false },
}

local properties = { receive_timeout = true, send_timeout = true, on_truncation = true }

-- All that can be read of a socket, as text.
local function state_of(sock)
  local lines = {}
  for _, name in ipairs(core.option_names()) do
    local ok, value = pcall(sock.get_option, sock, name)
    lines[#lines + 1] = ("%s = %s"):format(name, ok and tostring(value) or value.name)
  end
  for name in pairs(properties) do lines[#lines + 1] = ("%s = %s"):format(name, sock[name]) end
  table.sort(lines)
  return table.concat(lines, "\n")
end

local function names_of(values)
  local names = {}
  for name in pairs(values) do names[#names + 1] = name end
  table.sort(names)
  return names
end

describe("the order of options", function()
  it("has every option of the system once", function()
    local count, settable = {}, 0
    for _, name in ipairs(options_of.order) do
      assert.is_nil(count[name], name)
      count[name] = true
      settable = settable + (properties[name] and 0 or 1)
    end
    for _, name in ipairs(core.option_names()) do assert.is_true(count[name], name) end
    if is_linux then assert.equal(#core.option_names(), settable) end
  end)

  it("is that of the reference", function()
    local documented, in_table = {}, false
    for line in io.lines("docs/reference/options.md") do
      in_table = in_table and line:sub(1, 1) == "|" or line:find("^| step |") ~= nil
      local names = in_table and line:match("^| %d+ | (.-) |")
      for name in (names or ""):gmatch("`([%w_]+)`") do documented[#documented + 1] = name end
    end
    local settable = {}
    for _, name in ipairs(options_of.order) do
      if name ~= "dropped" and name ~= "error" and name ~= "mtu" then settable[#settable + 1] = name end
    end
    assert.same(settable, documented)
  end)

  for _, kind in ipairs(kinds) do
    local it_kind = platform.it_where(kind.name == "v4" or has_v6)

    it_kind("is the same for both orders of any two options: " .. kind.name, with_loop(function()
      local values = values_for(kind)
      local names = names_of(values)
      for i, one in ipairs(names) do
        for j = i + 1, #names do
          local other = names[j]
          local first <close> = ip.udp.bind(kind.any, 0, ordered(values, one, other))
          local second <close> = ip.udp.bind(kind.any, 0, ordered(values, other, one))
          assert.equal(state_of(first), state_of(second), one .. ", " .. other)
        end
      end
    end, 60))

    it_kind("gives each option what was asked for, with all options in one table: " .. kind.name, with_loop(function()
      local values = values_for(kind)
      local names = names_of(values)
      local backwards = table.move(names, 1, #names, 1, {})
      table.sort(backwards, function(a, b) return a > b end)
      local first <close> = ip.udp.bind(kind.any, 0, ordered(values, table.unpack(names)))
      local second <close> = ip.udp.bind(kind.any, 0, ordered(values, table.unpack(backwards)))
      assert.equal(state_of(first), state_of(second))
      for name, value in pairs(values) do
        local is_read_differently = name:find("size$") or name == "multicast_interface" or name:find("group$")
        if properties[name] then
          assert.equal(value, first[name], name)
        elseif not is_read_differently or name == "segment_size" then
          assert.equal(value, first:get_option(name), name)
        end
      end
      assert_raises("EADDRINUSE", nil, first.set_option, first, "join_multicast_group", kind.group)
    end))

    it_kind("holds for connect, too: " .. kind.name, with_loop(function()
      local values = values_for(kind)
      values.do_not_route, values.bind_to_device = nil, nil
      local names = names_of(values)
      local to = kind.name == "v4" and "127.0.0.1" or "::1"
      local peer <close> = ip.udp.bind(to, 0)
      local first <close> = ip.udp.connect(to, peer.local_port, ordered(values, table.unpack(names)))
      local reversed = {}
      for i, name in ipairs(names) do reversed[#names + 1 - i] = name end
      local second <close> = ip.udp.connect(to, peer.local_port, ordered(values, table.unpack(reversed)))
      assert.equal(state_of(first), state_of(second))
      first:send("x")
      assert.equal("x", (peer:receive_string()))
    end))
  end
end)

describe("a table of options with a mistake", function()
  local calls = {
    bind = function(options) return ip.udp.bind("127.0.0.1", 0, options) end,
    connect = function(options) return ip.udp.connect("127.0.0.1", 9, options) end,
  }

  for name, call in pairs(calls) do
    local to = ("to '%s' (%%s"):format(name)

    it("is refused by " .. name .. " under the name of the option", with_loop(function()
      for _, case in ipairs {
        { { reuse_address = 1 }, "option 'reuse_address': boolean expected, got number" },
        { { unicast_hops = 0 }, "option 'unicast_hops': 0 is outside 1..255" },
        { { receive_timeout = -1 }, "option 'receive_timeout': " },
        { { send_timeout = "1" }, "option 'send_timeout': " },
        { { multicast_interface = {} }, "option 'multicast_interface': " },
        { { join_multicast_group = 5 }, "option 'join_multicast_group': " },
        { { broadcast = true, unicast_hops = 300, reuse_port = true }, "option 'unicast_hops': " },
      } do
        assert_bad_argument(3, to:format(case[2]), call, case[1])
      end
    end))

    it("is refused by " .. name .. " where nobody has that option, before a socket is made", with_loop(function()
      local before = support.descriptors()
      assert_bad_argument(3, to:format("unknown option 'reuseaddr'; did you mean 'reuse_address'?"), call,
        { reuseaddr = true })
      assert_bad_argument(3, to:format("unknown option 'reuseaddr'"), call, { reuse_address = 1, reuseaddr = true })
      assert_bad_argument(3, to:format("unknown option '[1]'"), call, { "broadcast" })
      assert_bad_argument(3, to:format("unknown option 'aa'"), call, { zz = 1, aa = 1, mm = 1 })
      assert.equal(before, support.descriptors())
    end))

    it("raises under the option's name what the system says to " .. name, with_loop(function()
      assert_raises("ENOTSUP", "v6_only", call, { v6_only = true })
      assertions.assert_contains(assert_raises("ENOTSUP", nil, call, { error = 5 }), "'error'")
      if is_linux then
        assert_raises("ENODEV", "bind_to_device", call, { bind_to_device = "nosuch0" })
        for _, option in ipairs { "mtu", "dropped" } do
          assertions.assert_contains(assert_raises("ENOTSUP", nil, call, { [option] = 5 }), ("'%s'"):format(option))
        end
      end
      assert_raises("EINVAL", "join_multicast_group", call, { join_multicast_group = "127.0.0.1" })
    end))
  end

  it("is a mistake of the first option in the order, where there are several", with_loop(function()
    for _ = 1, 10 do
      assert_bad_argument(3, "option 'reuse_port'", calls.bind, { unicast_hops = 0, coalesce = 1, reuse_port = 1 })
    end
  end))

  it("is looked for in what pairs() gives, and so is every option", with_loop(function()
    local defaults = setmetatable({}, { __index = { broadcast = true, no_such_option = true } })
    local sock <close> = ip.udp.bind("127.0.0.1", 0, defaults)
    assert.is_false(sock:get_option("broadcast"))
    local proxy = setmetatable({}, { __pairs = function() return next, { broadcast = true } end })
    local other <close> = ip.udp.bind("127.0.0.1", 0, proxy)
    assert.is_true(other:get_option("broadcast"))
  end))

  it("names local_address and local_port", with_loop(function()
    local function connect(options) return ip.udp.connect("127.0.0.1", 9, options) end
    assert_bad_argument(3, "option 'local_port': 70000 is outside 0..65535", connect, { local_port = 70000 })
    assert_bad_argument(3, "option 'local_port': ", connect, { local_port = "80" })
    assert_bad_argument(3, "option 'local_address': ", connect, { local_address = "localhost" })
    assert_bad_argument(3, "unknown option 'local_port'", calls.bind, { local_port = 80 })
  end))
end)

describe("where the system makes v6 sockets that carry no v4", function()
  local it_wire = network.it_wire()
  local a

  network.for_specs({ "a" }, function(net)
    net:system("a", "net.ipv6.bindv6only", 1)
    a = net:agent("a")
  end)

  -- What a datagram of v4 and its answer show.
  local PROGRAM = [=[
    local values = {
      v6_only = false, receive_packet_info = true, receive_hops = true, receive_traffic_class = true,
      unicast_hops = 9, traffic_class = 0x28,
    }
    local options = require "spec.support.ordered" (values, ...)
    local server <close> = ip.udp.bind("::", 0, options)
    local client <close> = ip.udp.bind("127.0.0.1", 0, { receive_hops = true, receive_traffic_class = true })
    client:send_message("x", { address = "127.0.0.1", port = server.local_port, hops = 7, traffic_class = 4 })
    local _, info = server:receive_message(byte_span.new(10))
    server:send_to("y", "127.0.0.1", client.local_port)
    local _, back = client:receive_message(byte_span.new(10))
    return info.destination, info.hops, info.traffic_class, back.hops, back.traffic_class
  ]=]

  local shown = {
    receive_packet_info = "::ffff:127.0.0.1 nil nil 64 0", receive_hops = "nil 7 nil 64 0",
    receive_traffic_class = "nil nil 4 64 0", unicast_hops = "nil nil nil 9 0", traffic_class = "nil nil nil 64 40",
  }

  for name, expected in pairs(shown) do
    it_wire("v6_only = false comes before " .. name .. " in any table", function()
      assert.equal(expected, a:run(PROGRAM, "v6_only", name))
      assert.equal(expected, a:run(PROGRAM, name, "v6_only"))
    end)
  end

  it_wire("all options act on v4 traffic, too, with v6_only = false", function()
    local names = names_of(shown)
    local expected = "::ffff:127.0.0.1 7 4 9 40"
    names[#names + 1] = "v6_only"
    assert.equal(expected, a:run(PROGRAM, table.unpack(names)))
    table.sort(names, function(one, other) return one > other end)
    assert.equal(expected, a:run(PROGRAM, table.unpack(names)))
  end)
end)
