-- What set_raw_option and get_raw_option promise: options by number, as bytes.
local ip = require "ip"
local assertions = require "spec.support.assertions"
local platform = require "spec.support.platform"
local support = require "spec.support"

local bound, with_loop = support.bound, support.with_loop
local assert_method_raises = assertions.assert_method_raises
local assert_bad_method_argument = assertions.assert_bad_method_argument
local it_linux, it_linux_v6 = platform.it_linux, platform.it_linux_family("v6")

-- Numbers of Linux on most processors.
local SOL_SOCKET, SO_REUSEADDR, SO_TYPE, SO_RCVTIMEO, SO_PRIORITY, SO_BINDTODEVICE, SO_RXQ_OVFL, SO_BINDTOIFINDEX =
  1, 2, 3, 20, 12, 25, 40, 62
local SO_ATTACH_FILTER = 26
local SOCK_DGRAM = 2
local IPPROTO_IP, IP_TTL, IP_RECVERR, IP_MULTICAST_IF = 0, 2, 11, 32
local IPPROTO_IPV6, IPV6_ADDRFORM, IPV6_V6ONLY, IPV6_RECVERR, IPV6_PKTINFO = 41, 1, 26, 25, 50
local IPPROTO_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104

local function integer(bytes)
  return (("i4"):unpack(bytes))
end

-- Attaches a filter of so many instructions, which accept every datagram, and returns their bytes. Where a string
-- has its bytes depends on the version of Lua; the system refuses what is no filter.
local function attach_filter(sock, instructions)
  local filter = ("I2I1I1I4"):pack(6, 0, 0, 65535):rep(instructions)
  filter = (" " .. filter):sub(2) -- Lua 5.5 may keep the bytes of the former elsewhere
  local address = tonumber(("%p"):format(filter):sub(3), 16)
  for offset = 8, 64, 4 do
    local program = ("!I2XTT"):pack(instructions, address + offset)
    if pcall(sock.set_raw_option, sock, SOL_SOCKET, SO_ATTACH_FILTER, program) then return filter end
  end
  error("the system refuses the filter")
end

describe("get_raw_option", function()
  it_linux("returns the bytes that the system gives, as many as it gives", with_loop(function()
    local sock <close> = ip.udp.bind("127.0.0.1", 0, { unicast_hops = 77 })
    assert.equal(SOCK_DGRAM, integer(sock:get_raw_option(SOL_SOCKET, SO_TYPE, 4)))
    assert.equal(77, integer(sock:get_raw_option(IPPROTO_IP, IP_TTL, 4)))
    assert.equal(4, #sock:get_raw_option(SOL_SOCKET, SO_TYPE, 100))
    assert.equal(4, #sock:get_raw_option(SOL_SOCKET, SO_TYPE, 65535))
    assert.equal(2, #sock:get_raw_option(SOL_SOCKET, SO_TYPE, 2))
    assert.equal("", sock:get_raw_option(SOL_SOCKET, SO_TYPE, 0))
    assert.equal("lo\0", (function()
      sock:set_option("bind_to_device", "lo")
      return sock:get_raw_option(SOL_SOCKET, SO_BINDTODEVICE, 16)
    end)())
  end))

  it_linux("counts a filter in bytes, though the system counts instructions", with_loop(function()
    local sock <close> = bound()
    local filter = attach_filter(sock, 200)
    assert.is_true(filter == sock:get_raw_option(SOL_SOCKET, SO_ATTACH_FILTER, #filter))
    assert.is_true(filter == sock:get_raw_option(SOL_SOCKET, SO_ATTACH_FILTER, 65535))
    for _, length in ipairs { 8, 200, #filter - 1 } do
      assert_method_raises("EINVAL", sock, "get_raw_option", SOL_SOCKET, SO_ATTACH_FILTER, length)
    end
    assert.equal("", sock:get_raw_option(SOL_SOCKET, SO_ATTACH_FILTER, 7))
  end))

  it_linux("raises what the system says, under its own name", with_loop(function()
    local sock <close> = bound()
    assert_method_raises("ENOPROTOOPT", sock, "get_raw_option", SOL_SOCKET, 9999, 4)
    assert_method_raises("ENOPROTOOPT", sock, "set_raw_option", SOL_SOCKET, 9999, 4)
    assert_method_raises("EINVAL", sock, "set_raw_option", SOL_SOCKET, SO_REUSEADDR, "")
  end))

  it("refuses what is no number, and lengths that are too large", with_loop(function()
    local sock <close> = bound()
    for position, arguments in ipairs { { "1", 2, 4 }, { 1, {}, 4 }, { 1, 2, "4" } } do
      assert_bad_method_argument(position, sock, "get_raw_option", table.unpack(arguments))
    end
    for _, number in ipairs { -1, 1 << 31, 1.5 } do
      assert_bad_method_argument(1, sock, "get_raw_option", number, 2, 4)
      assert_bad_method_argument(2, sock, "get_raw_option", 1, number, 4)
    end
    for _, length in ipairs { -1, 65536, math.maxinteger } do
      assert_bad_method_argument(3, sock, "get_raw_option", 1, 2, length)
    end
    assert_bad_method_argument(3, sock, "get_raw_option", 1, 2)
  end))
end)

describe("set_raw_option", function()
  it_linux("takes an integer as an int of the system, signed or not", with_loop(function()
    local sock <close> = bound()
    sock:set_raw_option(SOL_SOCKET, SO_PRIORITY, 5)
    assert.equal(5, sock:get_option("priority"))
    sock:set_raw_option(IPPROTO_IP, IP_TTL, 9)
    assert.equal(9, sock:get_option("unicast_hops"))
    assert_method_raises("EINVAL", sock, "set_raw_option", IPPROTO_IP, IP_TTL, 0xffffff00)
    assert_method_raises("EINVAL", sock, "set_raw_option", IPPROTO_IP, IP_TTL, -256)
    sock:set_raw_option(IPPROTO_IP, IP_TTL, -1) -- the system's default
    assert.equal(64, sock:get_option("unicast_hops"))
    sock:set_raw_option(IPPROTO_IP, IP_TTL, 9)
    sock:set_raw_option(IPPROTO_IP, IP_TTL, 0xffffffff)
    assert.equal(64, sock:get_option("unicast_hops"))
  end))

  it_linux("takes a string as the bytes of the value", with_loop(function()
    local sock <close> = bound()
    sock:set_raw_option(SOL_SOCKET, SO_PRIORITY, ("i4"):pack(3))
    assert.equal(3, sock:get_option("priority"))
    local time = ("jj"):pack(3, 0)
    sock:set_raw_option(SOL_SOCKET, SO_RCVTIMEO, time)
    assert.equal(time, sock:get_raw_option(SOL_SOCKET, SO_RCVTIMEO, 64))
  end))

  it_linux("lets what was queued before leave without the option", with_loop(function()
    local receiver <close> = ip.udp.bind("127.0.0.1", 0, { receive_hops = true })
    local sock <close> = ip.udp.connect("127.0.0.1", receiver.local_port, { coalesce = true })
    sock:send("before")
    sock:set_raw_option(IPPROTO_IP, IP_TTL, 9)
    sock:send("after")
    sock:flush()
    local buf = ip.byte_span.new(9)
    assert.equal(64, select(2, receiver:receive_message(buf)).hops)
    assert.equal(9, select(2, receiver:receive_message(buf)).hops)
  end))

  it_linux_v6("is noticed by the parts of the socket that an option concerns", with_loop(function()
    local sock <close> = ip.udp.socket.new()
    sock:open("v6")
    sock:set_option("v6_only", false)
    sock:set_option("coalesce", true)
    sock:set_raw_option(IPPROTO_IPV6, IPV6_V6ONLY, 1)
    sock:bind("::", 0)
    assert.equal(ip.error.ENETUNREACH, support.error_of(sock.send_to, sock, "x", "127.0.0.1", 9))
  end))

  it_linux("refuses an option that the socket has to know of, and says what to use instead", with_loop(function()
    local sock <close> = bound(platform.has_v6 and "v6" or "v4")
    for _, case in ipairs {
      { IPPROTO_UDP, UDP_GRO, "receive_offload" }, { IPPROTO_UDP, UDP_SEGMENT, "segment_size" },
      { SOL_SOCKET, SO_RXQ_OVFL, "receive_dropped" }, { IPPROTO_IP, IP_RECVERR, "receive_errors" },
      { IPPROTO_IPV6, IPV6_RECVERR, "receive_errors" }, { SOL_SOCKET, SO_BINDTODEVICE, "bind_to_device" },
      { SOL_SOCKET, SO_BINDTOIFINDEX, "bind_to_device" }, { IPPROTO_IP, IP_MULTICAST_IF, "multicast_interface" },
      { IPPROTO_IPV6, IPV6_ADDRFORM, "family" },
    } do
      local before = sock:get_raw_option(SOL_SOCKET, SO_TYPE, 4)
      local message = assert_bad_method_argument(2, sock, "set_raw_option", case[1], case[2], 1)
      assertions.assert_contains(message, case[3])
      assert.equal(before, sock:get_raw_option(SOL_SOCKET, SO_TYPE, 4))
    end
    assert.is_false(sock:get_option("receive_offload"))
    assert.is_false(sock:get_option("receive_errors"))
  end))

  it_linux_v6("sets what has no name here", with_loop(function()
    local sock <close> = bound("v6")
    sock:set_raw_option(IPPROTO_IPV6, IPV6_PKTINFO, ("\0"):rep(16) .. ("I4"):pack(0))
  end))

  it("refuses what is neither a string nor an integer of 32 bits", with_loop(function()
    local sock <close> = bound()
    for _, data in ipairs { true, {}, 1.5, 1 << 32, -(1 << 31) - 1, ip.byte_span.new(4), ("x"):rep(65536) } do
      assert_bad_method_argument(3, sock, "set_raw_option", 1, 2, data)
    end
    assert_bad_method_argument(3, sock, "set_raw_option", 1, 2)
    assert_bad_method_argument(1, sock, "set_raw_option", "1", 2, 4)
  end))
end)
