-- What ip.file_descriptor, assign and release promise.
local ip = require "ip"
local support = require "spec.support"
local assertions = require "spec.support.assertions"
local hosts = require "spec.support.hosts"
local modules = require "spec.support.modules"
local platform = require "spec.support.platform"
local process = require "spec.support.process"

local byte_span, file_descriptor = ip.byte_span, ip.file_descriptor
local bound, pair = support.bound, support.pair
local with_loop = support.with_loop

local has_luasocket, luasocket = pcall(require, "socket")

local assert_bad_argument, assert_message = assertions.assert_bad_argument, assertions.assert_message
local assert_contains, assert_prints = assertions.assert_contains, assertions.assert_prints
local assert_raises = assertions.assert_raises

-- Is a descriptor of this number open?
local function is_open(number)
  local ok, fd = pcall(file_descriptor.new, number)
  if ok then fd:release() end
  return ok
end

-- The open-file flags of a descriptor, as an integer.
local function flags_of(number)
  for line in io.lines(("/proc/self/fdinfo/%d"):format(number)) do
    local flags = line:match("^flags:%s*(%d+)")
    if flags then return tonumber(flags, 8) end
  end
end

local NONBLOCK <const> = 2048 -- on Linux

describe("ip.file_descriptor", function()
  it("is what a socket releases: named, duplicated, closed once", with_loop(function()
    local sock = bound()
    local number = sock.native_handle
    local fd = sock:release()
    assert.equal("/dev/fd/" .. number, tostring(fd))
    local copy = fd:dup()
    assert.is_true(is_open(number))
    fd:close()
    fd:close()
    assert.is_false(is_open(number))
    local copied = copy:release()
    assert.is_true(is_open(copied))
    file_descriptor.new(copied):close()
    assert.is_false(is_open(copied))
  end))

  it("says EBADF for a number that is not open", with_loop(function()
    local sock = bound()
    local number = sock.native_handle
    sock:close()
    assert_raises("EBADF", "new", file_descriptor.new, number)
    assert_raises("EBADF", "new", file_descriptor.new, math.maxinteger >> 32)
  end))

  it("refuses what is no descriptor number", function()
    assert_bad_argument(nil, "-1 is outside", file_descriptor.new, -1)
    assert_bad_argument(nil, "is outside", file_descriptor.new, 1 << 40)
    assert_bad_argument(nil, "integer expected", file_descriptor.new, "3")
    assert_bad_argument(nil, "integer expected", file_descriptor.new)
    assert_bad_argument(nil, "integer expected, got number", file_descriptor.new, 1.5)
  end)

  it("raises EBADF when it is used after close or release", with_loop(function()
    for _, ending in ipairs { "close", "release" } do
      local fd = bound():release()
      local number = fd[ending](fd)
      assert_raises("EBADF", "dup", fd.dup, fd)
      assert_raises("EBADF", "release", fd.release, fd)
      fd:close()
      assert_contains(fd, "closed")
      if number then
        assert.is_true(is_open(number))
        file_descriptor.new(number):close()
      end
    end
  end))

  it("raises what close reports, and is empty all the same", with_loop(function()
    local number = bound():release():release()
    local one, other = file_descriptor.new(number), file_descriptor.new(number)
    one:close()
    assert_raises("EBADF", "close", other.close, other)
    other:close()
  end))

  it("is closed by the end of a <close> variable and by the collector", with_loop(function()
    local number
    do
      local fd <close> = bound():release()
      number = tonumber(tostring(fd):match("%d+"))
      assert.is_true(is_open(number))
    end
    assert.is_false(is_open(number))
    number = tonumber(tostring(bound():release()):match("%d+"))
    collectgarbage()
    collectgarbage()
    assert.is_false(is_open(number))
  end))

  it("makes copies that a program it starts does not inherit", with_loop(function()
    local fd <close> = bound():release()
    local copy <close> = fd:dup()
    local number = tostring(copy):match("%d+")
    local pipe = io.popen("ls /proc/self/fd")
    local inherited = pipe:read("a")
    pipe:close()
    assert.is_nil(("\n" .. inherited):find("\n" .. number .. "\n", 1, true))
  end))

  it("names what it has not", with_loop(function()
    local fd <close> = bound():release()
    assert_message("no property 'fd'", function() return fd.fd end)
  end))
end)

describe("release", function()
  it("closes the socket and keeps what has arrived, the port and the peer", with_loop(function()
    local a, b = pair()
    b:send("waiting")
    local port = a.local_port
    local fd = a:release()
    assert.is_false(a.is_open)
    assert_raises("EBADF", "receive", a.receive, a, byte_span.new(1))
    local heir = ip.udp.socket.new()
    heir:assign("v4", fd)
    assert.equal(port, heir.local_port)
    assert.equal(b.local_port, heir.remote_port)
    assert.equal(b.local_address, heir.remote_address)
    assert.equal("waiting", (heir:receive_string()))
    heir:send("answer")
    assert.equal("answer", (b:receive_string()))
    heir:close()
    b:close()
  end))

  it("ends what is pending with ECANCELED, each once, and loses no datagram", with_loop(function()
    local sock, port = bound()
    local waiters = {}
    for i = 1, 3 do
      waiters[i] = support.suspended(sock, "receive_string")
    end
    local client = ip.udp.connect("127.0.0.1", port)
    client:send("for the heir")
    local fd = sock:release()
    for _, waiter in ipairs(waiters) do
      local ok, err = waiter:join()
      assert.is_false(ok)
      assert.equal(ip.error.ECANCELED, err)
    end
    local heir = ip.udp.socket.new()
    heir:assign("v4", fd)
    assert.equal("for the heir", (heir:receive_string()))
    heir:close()
    client:close()
  end))

  it("raises EBADF on a socket that is not open", function()
    local sock = ip.udp.socket.new()
    assert_raises("EBADF", "release", sock.release, sock)
  end)

  it("leaves a socket that can be opened again", with_loop(function()
    local sock = bound()
    local fd <close> = sock:release() -- luacheck: ignore fd
    sock:bind("127.0.0.1", 0)
    local client = ip.udp.connect("127.0.0.1", sock.local_port)
    client:send("new life")
    assert.equal("new life", (sock:receive_string()))
    sock:close()
    client:close()
  end))
end)

describe("assign", function()
  it("empties the descriptor that it takes, and an integer serves as well", with_loop(function()
    local sock = bound()
    local fd = sock:release()
    local number = tonumber(tostring(fd):match("%d+"))
    sock:assign("v4", fd)
    assert.equal(number, sock.native_handle)
    assert_raises("EBADF", "dup", fd.dup, fd)
    number = sock:release():release()
    sock:assign(ip.address.any_v4(), number)
    assert.equal("v4", sock.family)
    sock:close()
    assert.is_false(is_open(number))
  end))

  it("finds the family out where it is given none", with_loop(function()
    local sock = bound()
    sock:assign(sock:release())
    assert.equal("v4", sock.family)
    sock:assign(sock:release():release())
    assert.equal("v4", sock.family)
    sock:assign(sock:release(), nil)
    assert.equal("v4", sock.family)
    sock:close()
    local unbound = ip.udp.socket.new()
    unbound:open("v4")
    unbound:assign(unbound:release())
    assert.equal("v4", unbound.family)
    unbound:close()
  end))

  platform.it_v6("finds out that it is v6", with_loop(function()
    local sock = bound("v6")
    local fd = sock:release()
    sock:assign(fd)
    assert.equal("v6", sock.family)
    assert_raises("EBADF", "dup", fd.dup, fd)
    sock:close()
    sock:open("v6")
    sock:assign(sock:release())
    assert.equal("v6", sock.family)
    sock:close()
  end))

  it("without a family refuses what is no UDP socket, all the same", with_loop(function()
    local sock = ip.udp.socket.new()
    local file = ip.file_descriptor.new(0)
    assert_raises("EINVAL", "assign", sock.assign, sock, file)
    assert_raises("EINVAL", "assign", sock.assign, sock, file:release())
    assert_raises("EBADF", "assign", sock.assign, sock, file)
    local holder = bound()
    assert_raises("EEXIST", "assign", sock.assign, sock, holder.native_handle)
    assert_bad_argument(nil, "-1 is outside", sock.assign, sock, -1)
    assert_bad_argument(nil, "ip.address expected", sock.assign, sock)
    holder:close()
  end))

  it("waits on the descriptor as on its own", with_loop(function()
    local sock, port = bound()
    local waiter = support.suspended(sock, "receive_string")
    local heir = ip.udp.socket.new()
    heir:assign("v4", sock:release())
    local waiting = support.suspended(heir, "receive_string")
    local client = ip.udp.connect("127.0.0.1", port)
    client:send("woken")
    assert.equal("woken", (select(2, waiting:join())))
    waiter:join()
    heir:close()
    client:close()
  end))

  it("refuses what is no UDP socket of the family, and leaves it with the caller", with_loop(function()
    local sock = ip.udp.socket.new()
    local fd <close> = bound():release()
    local number = tonumber(tostring(fd):match("%d+"))
    assert_raises("EINVAL", "assign", sock.assign, sock, "v6", fd)
    assert_raises("EINVAL", "assign", sock.assign, sock, ip.address.any_v6(), number)
    assert.is_true(is_open(number))
    local copy <close> = fd:dup() -- still its owner
    local copied = tonumber(tostring(copy):match("%d+"))
    copy:close()
    local file <close> = assert(io.open("/dev/null")) -- which gets the number that has just become free
    assert.is_not_nil(file)
    assert_raises("EINVAL", "assign", sock.assign, sock, "v4", copied)
    assert.is_false(sock.is_open)
  end))

  it("refuses a stream socket", with_loop(function()
    if not has_luasocket then return pending("luasocket is not installed") end
    local stream = assert(luasocket.bind("127.0.0.1", 0))
    local sock = ip.udp.socket.new()
    assert_raises("EINVAL", "assign", sock.assign, sock, "v4", stream:getfd())
    assert.is_not_nil(stream:getsockname())
    stream:close()
  end))

  it("says EBADF for a closed descriptor, and closes nothing", with_loop(function()
    local sock = ip.udp.socket.new()
    local fd = bound():release()
    local number = tonumber(tostring(fd):match("%d+"))
    fd:close()
    assert_raises("EBADF", "assign", sock.assign, sock, "v4", fd)
    assert_raises("EBADF", "assign", sock.assign, sock, "v4", number)
  end))

  it("says EEXIST for a descriptor that another open socket holds", with_loop(function()
    local holder, sock = bound(), ip.udp.socket.new()
    assert_raises("EEXIST", "assign", sock.assign, sock, "v4", holder.native_handle)
    assert.is_true(holder.is_open)
    assert.is_false(sock.is_open)
    holder:close()
  end))

  it("says EALREADY on an open socket", with_loop(function()
    local sock = bound()
    local fd <close> = bound():release()
    assert_raises("EALREADY", "assign", sock.assign, sock, "v4", fd)
    assert_contains(fd, "/dev/fd/")
    sock:close()
  end))

  it("refuses other arguments", function()
    local sock = ip.udp.socket.new()
    assert_bad_argument(nil, "ip.file_descriptor or integer expected", sock.assign, sock, "v4", "3")
    assert_bad_argument(nil, "ip.file_descriptor or integer expected", sock.assign, sock, "v4")
    assert_bad_argument(nil, "-1 is outside", sock.assign, sock, "v4", -1)
    assert_bad_argument(nil, "got string 'v5'", sock.assign, sock, "v5", 0)
  end)

  it("leaves options as they are", with_loop(function()
    local sock = bound()
    sock:set_option("broadcast", true)
    sock:set_option("unicast_hops", 7)
    local size = sock:get_option("receive_buffer_size")
    sock:assign("v4", sock:release())
    assert.is_true(sock:get_option("broadcast"))
    assert.is_false(sock:get_option("reuse_address"))
    assert.equal(7, sock:get_option("unicast_hops"))
    assert.equal(size, sock:get_option("receive_buffer_size"))
    sock:close()
  end))

  it("goes on dropping non-peer datagrams that came before a connect", with_loop(function()
    local sock, port = bound()
    local other, peer = bound(), bound()
    other:send_to("other", "127.0.0.1", port)
    sock:connect("127.0.0.1", peer.local_port)
    peer:send_to("peer", "127.0.0.1", port)
    local heir = ip.udp.socket.new()
    heir:assign("v4", sock:release())
    assert.equal("peer", (heir:receive_string()))
    assert.is_nil(heir:try_receive(byte_span.new(1)))
    for _, each in ipairs { heir, other, peer } do each:close() end
  end))

  it("keeps the port when the connection that it found is dissolved", with_loop(function()
    local a, b = pair()
    local heir = ip.udp.socket.new()
    heir:assign("v4", a:release())
    local port = heir.local_port
    heir:disconnect()
    assert.equal(port, heir.local_port)
    assert_raises("ENOTCONN", "remote_port", function() return heir.remote_port end)
    b:send("still heard")
    assert.equal("still heard", (heir:receive_string()))
    heir:close()
    b:close()
  end))

  it("notices that receiving was shut down, instead of polling for ever", with_loop(function()
    for _, side in ipairs { "receive", "both" } do
      local a, b = pair()
      a:shutdown(side)
      local heir = ip.udp.socket.new()
      heir:assign("v4", a:release())
      assert_raises("ESHUTDOWN", "receive", heir.receive, heir, byte_span.new(1))
      if side == "both" then assert_raises("EPIPE", "send", heir.send, heir, "x") end
      heir:close()
      b:close()
    end
  end))

  platform.it_v6("takes v6 sockets, and refuses them as v4", with_loop(function()
    local sock, port = bound("v6")
    local fd = sock:release()
    assert_raises("EINVAL", "assign", sock.assign, sock, "v4", fd)
    sock:assign("v6", fd)
    assert.equal("v6", sock.family)
    assert.equal(port, sock.local_port)
    local client = ip.udp.connect("::1", port)
    client:send("six")
    assert.equal("six", (sock:receive_string()))
    sock:close()
    client:close()
  end))
end)

describe("a descriptor from a supervisor", function()
  local it_supervised = hosts.it("supervisor")

  -- The words of a command that runs a program (a file) with a socket of the supervisor's as descriptor 3.
  local function supervised(path)
    return { hosts.path("supervisor"), support.interpreter, path }
  end

  it_supervised("serves, with what was queued before the program began", with_loop(function()
    finally(process.stop_all)
    local path = support.write_file [[
      local ip = require "ip"
      assert(os.getenv("LISTEN_FDS") == "1")
      local sock = ip.udp.socket.new()
      sock:assign("v4", ip.file_descriptor.new(3))
      io.stdout:setvbuf("no")
      print("port " .. sock.local_port .. " " .. sock:receive_string())
      local text, address, port = sock:receive_string()
      sock:send_to(text:upper(), address, port)
    ]]
    local served <close> = process.start(supervised(path))
    local port = tonumber(served:wait_for("port (%d+) queued before exec"))
    local client = ip.udp.connect("127.0.0.1", port)
    client:send("hello")
    assert.equal("HELLO", (client:receive_string()))
    assert.equal(0, served:wait())
    os.remove(path)
    client:close()
  end, 30))

  it_supervised("is made non-blocking, and nothing else of it is changed", with_loop(function()
    local path = support.write_file [[
      local ip = require "ip"
      local function flags()
        for line in io.lines("/proc/self/fdinfo/3") do
          local flags = line:match("^flags:%s*(%d+)")
          if flags then return tonumber(flags, 8) end
        end
      end
      local before = flags()
      local sock = ip.udp.socket.new()
      assert(not pcall(sock.assign, sock, "v6", 3))
      assert(flags() == before, "a refused descriptor was touched")
      sock:assign("v4", 3)
      assert(flags() == before | 2048, "more than O_NONBLOCK")
      print("passed")
    ]]
    local output, errors = process.run(supervised(path), 30)
    os.remove(path)
    assert.equal("passed\n", output .. errors)
  end, 40))
end)

describe("other libraries' descriptors", function()
  it("luasocket's serves here", with_loop(function()
    if not has_luasocket then return pending("luasocket is not installed") end
    local theirs = assert(luasocket.udp4())
    assert(theirs:setsockname("127.0.0.1", 0))
    local _, port = theirs:getsockname()
    local number = theirs:getfd()
    theirs:setfd(-1) -- no longer theirs
    local sock = ip.udp.socket.new()
    sock:assign("v4", number)
    assert.equal(tonumber(port), sock.local_port)
    assert.is_true(flags_of(number) & NONBLOCK ~= 0)
    local client = ip.udp.connect("127.0.0.1", sock.local_port)
    client:send("from luasocket")
    assert.equal("from luasocket", (sock:receive_string()))
    sock:close()
    client:close()
  end))

  it("ours serves in luasocket", with_loop(function()
    if not has_luasocket then return pending("luasocket is not installed") end
    local sock, port = bound()
    local client = ip.udp.connect("127.0.0.1", port)
    client:send("to luasocket")
    local theirs = assert(luasocket.udp4())
    theirs:getsockname() -- makes its own descriptor, if it had none
    if theirs:getfd() >= 0 then file_descriptor.new(theirs:getfd()):close() end
    theirs:setfd(sock:release():release())
    theirs:settimeout(5)
    assert.equal("to luasocket", theirs:receive())
    theirs:close()
    client:close()
  end))

  local it_luv = platform.it_where(modules.exists("luv"), "luv")

  it_luv("luv's serves here", function()
    assert_prints("from luv\n", [[
      local ip, uv = require "ip", require "luv"
      local theirs = uv.new_udp()
      assert(theirs:bind("127.0.0.1", 0))
      local port = theirs:getsockname().port
      local borrowed = ip.file_descriptor.new(theirs:fileno())
      local own = borrowed:dup()
      borrowed:release() -- luv's still
      theirs:close()
      uv.run("nowait")
      local sock = ip.udp.socket.new()
      sock:assign("v4", own)
      assert(sock.local_port == port)
      local client = ip.udp.connect("127.0.0.1", port)
      client:send("from luv")
      print((sock:receive_string()))
    ]])
  end)

  it_luv("ours serves in luv", function()
    assert_prints("nil\tto luv\n", [[
      local ip, uv = require "ip", require "luv"
      local sock = ip.udp.bind("127.0.0.1", 0)
      local client = ip.udp.connect("127.0.0.1", sock.local_port)
      client:send("to luv")
      local theirs = uv.new_udp()
      assert(theirs:open(sock:release():release()))
      theirs:recv_start(function(err, data)
        if data == nil then return end
        print(err, data)
        theirs:recv_stop()
        theirs:close()
      end)
      uv.run()
    ]])
  end)
end)

describe("datagrams that the system has joined", function()
  -- A pair whose receiver reads joined datagrams, of which one has been received and two are in its
  -- read-ahead buffer.
  local function opened()
    local server = ip.udp.bind("127.0.0.1", 0)
    server:set_option("receive_offload", true)
    local client = ip.udp.connect("127.0.0.1", server.local_port)
    client:set_option("segment_size", 3)
    client:send("onetwosix")
    assert.equal("one", (server:receive_string()))
    return server, client
  end

  it("keep release from giving the descriptor away until they are received: EBUSY", with_loop(function()
    local server, client = opened()
    assert_raises("EBUSY", "release", server.release, server)
    assert.is_true(server.is_open)
    assert.equal("two", (server:receive_string()))
    assert.equal("six", (server:receive_string()))
    server:release():close()
    client:close()
  end))

  it("keep their boundaries on a descriptor that comes with the option on", with_loop(function()
    local server, client = opened()
    server:receive_string()
    server:receive_string()
    local fd = server:release()
    local taken <close> = ip.udp.socket.new()
    taken:assign("v4", fd)
    client:send("abcdef")
    assert.equal("abc", (taken:receive_string()))
    assert.equal("def", (taken:receive_string()))
    client:close()
  end))

  it("and errors that wait in a foreign descriptor's queue make nobody spin", support.on_main(function()
    local sender = ip.udp.connect("127.0.0.1", support.dead_port())
    sender:set_option("receive_errors", true)
    local fd = sender:release()
    local taken <close> = ip.udp.socket.new()
    taken:assign("v4", fd)
    taken:send("x")
    assert_raises("ECONNREFUSED", nil, taken.receive_string, taken)
    taken.receive_timeout = 0.05
    assertions.assert_sleeps(function()
      assert_raises("ETIMEDOUT", nil, taken.receive_string, taken)
    end)
    assert.equal(ip.error.ECONNREFUSED, taken:receive_error().error)
  end))
end)
