-- What ip.emilua promises: scripts that were written for Emilua run.
local ip = require "ip"
local process = require "spec.support.process"
local support = require "spec.support"

local OPTION = { "-l", "ip.emilua" }

local files = {}

local function write_file(source)
  local path = support.write_file(source)
  files[#files + 1] = path
  return path
end

-- The words of a command that runs a script as Emilua's; `...` are the script's arguments.
local function emilua(source, ...)
  return process.lua(OPTION[1], OPTION[2], write_file(source), ...)
end

local function run(source, ...)
  return process.run(emilua(source, ...))
end

-- Runs a script that must end well and write exactly this.
local function prints(expected, source, ...)
  local output, errors, code = run(source, ...)
  assert.equal("", errors)
  assert.equal(expected, output)
  assert.equal(0, code)
end

local function program(name, expected, source)
  it(name, support.with_loop(function() prints(expected, source) end, 30))
end

local function cleaned_up()
  process.stop_all()
  for _, path in ipairs(files) do os.remove(path) end
  files = {}
end

describe("an Emilua script", function()
  after_each(cleaned_up)

  it("is the program at the head of the reference page", support.with_loop(function()
    local page <close> = assert(io.open("docs/reference/emilua.md"))
    prints("hello\ntrue\n", page:read("a"):match("```lua\n(.-)```"))
  end, 30))

  it("is the example of ip.udp.socket's page: an echo of one datagram", support.with_loop(function()
    -- As it stands there, but for the port, which the system chooses and the script tells.
    local server <close> = process.start(emilua [[
      local ip = require 'ip'

      local sock = ip.udp.socket.new()
      sock:open('v4')
      sock:bind(ip.address.any_v4(), 0)
      io.stderr:write('port ', sock.local_port, '\n')

      local buf = byte_span.new(1024)
      local nread, remote_addr, remote_port = sock:receive_from(buf)
      sock:send_to(buf:slice(1, nread), remote_addr, remote_port)
    ]])
    local port = math.tointeger(server:wait_for("port (%d+)\n"))
    local client <close> = ip.udp.connect("127.0.0.1", port)
    client:send("hello")
    assert.equal("hello", (client:receive_string()))
    assert.equal(0, server:wait())
  end, 30))

  it("is a client: connect, send, receive", support.with_loop(function()
    local server <close>, port = support.bound()
    local answering = ip.fiber.spawn(function()
      local text, address, from = server:receive_string()
      server:send_to(text:upper(), address, from)
    end)
    prints("QUESTION\t8\n", [[
      local ip = require 'ip'
      local sock = ip.udp.socket.new()
      sock:open('v4')
      sock:connect(ip.address.loopback_v4(), math.tointeger((...)))
      sock:send(byte_span.append('question'))
      local buf = byte_span.new(1024)
      local nread = sock:receive(buf)
      print(tostring(buf:slice(1, nread)), nread)
      sock:close()
    ]], port)
    answering:join()
  end, 30))

  program("sizes a buffer by peeking into an empty one and asking for bytes_readable", "12345\t5\n", [[
    local ip = require 'ip'
    local sock = ip.udp.socket.new()
    sock:open('v4')
    sock:bind(ip.address.loopback_v4(), 0)
    spawn(function()
      local client = ip.udp.socket.new()
      client:open('v4')
      client:send_to(byte_span.append('12345'), ip.address.loopback_v4(), sock.local_port)
    end):detach()
    sock:receive(byte_span.new(0), ip.message_flag.peek)
    local buf = byte_span.new(sock:io_control('bytes_readable'))
    local nread, remote_addr, remote_port = sock:receive_from(buf)
    assert(ip.tostring(remote_addr, remote_port):match('^127%.0%.0%.1:%d+$'))
    print(buf, nread)
  ]])

  program("spawns: the new fiber starts when the running one suspends; join gives its results",
    "main\nfiber\nmain again\nresult\tnil\t3\n", [[
    local f = spawn(function(...)
      assert(select('#', ...) == 0)
      print('fiber')
      this_fiber.yield()
      return 'result', nil, 3
    end, 'dropped')
    print('main')
    this_fiber.yield()
    print('main again')
    print(f:join())
  ]])

  program("gets a fiber's error from join, and nothing on stderr", "false\tof the fiber\ntrue\n", [[
    local ip = require 'ip'
    print(pcall(function() spawn(function() error('of the fiber', 0) end):join() end))
    local ok, err = pcall(function() spawn(function() error(ip.error.EPERM) end):join() end)
    print(not ok and err == ip.error.EPERM)
  ]])

  program("interrupts a receive; the datagram that comes later is still to be had", "0\ttrue\nlate\n", [[
    local ip = require 'ip'
    local function op_with_timeout(op, timeout)
      local f_op = spawn(op)
      local f_timer = spawn(function()
        sleep(timeout)
        f_op:interrupt()
      end)
      local ret = { f_op:join() }
      f_timer:interrupt()
      return #ret, f_op.interruption_caught
    end
    local sock = ip.udp.socket.new()
    sock:open('v4')
    sock:bind(ip.address.loopback_v4(), 0)
    local buf = byte_span.new(16)
    print(op_with_timeout(function() return sock:receive(buf) end, 0.01))
    sock:send_to(byte_span.append('late'), ip.address.loopback_v4(), sock.local_port)
    print(buf:slice(1, sock:receive(buf)))
  ]])

  program("is interrupted again at every suspending call, until the fiber has ended", "1\n2\ntrue\n", [[
    local ip = require 'ip'
    local f = spawn(function()
      print(1)
      local ok, err = pcall(function() sleep(1000) end)
      assert(not ok and err == ip.error.INTERRUPTED)
      print(2)
      this_fiber.yield()
      print('not reached')
    end)
    this_fiber.yield()
    f:interrupt()
    f:join()
    print(f.interruption_caught)
  ]])

  program("cleans up with interruption disabled, as often as it was disabled", "cleaned\nsent\ntrue\n", [[
    local ip = require 'ip'
    local a, b = ip.udp.socket.new(), ip.udp.socket.new()
    b:open('v4')
    b:bind(ip.address.loopback_v4(), 0)
    a:open('v4')
    a:connect(b.local_address, b.local_port)
    local f = spawn(function()
      local ok, ex = pcall(function() sleep(1000) end)
      if not ok then
        this_fiber.disable_interruption()
        this_fiber.disable_interruption()
        pcall(function() sleep(0.01) a:send(byte_span.append('sent')) end)
        this_fiber.restore_interruption()
        this_fiber.yield()
        print('cleaned')
        this_fiber.restore_interruption()
        this_fiber.yield()
        print('not reached')
        error(ex)
      end
    end)
    this_fiber.yield()
    f:interrupt()
    f:join()
    local buf = byte_span.new(16)
    print(buf:slice(1, b:receive(buf)))
    print(f.interruption_caught)
  ]])

  program("refuses to restore what was not disabled, in the main body as in fibers", "false\nfalse\ntrue\n", [[
    local function restore() this_fiber.restore_interruption() end
    print((pcall(restore)))
    spawn(function() print((pcall(restore))) end):join()
    this_fiber.disable_interruption()
    print((pcall(restore)))
  ]])

  program("speaks of cancellation, as later releases of Emilua do", "true\ttrue\n", [[
    local f = spawn(function()
      this_fiber.disable_cancellation()
      this_fiber.yield()
      this_fiber.restore_cancellation()
      sleep(1000)
    end)
    f:cancel()
    f:join()
    print(f.cancellation_caught, f.interruption_caught)
  ]])

  program("sleeps: sleepsort", "1\n2\n3\n8\n", [[
    local sleep = require('time').sleep
    for _, n in pairs({ 8, 2, 3, 1 }) do
      spawn(function()
        sleep(n / 20)
        print(n)
      end)
    end
  ]])

  program("has storage of each fiber's own, also inside a generator", "nil\nmain\nmain\nnil\nfiber\nmain\n", [[
    print(this_fiber.local_.test)
    this_fiber.local_.test = 'main'
    print(this_fiber.local_.test)
    coroutine.wrap(function() print(this_fiber.local_.test) end)()
    spawn(function()
      print(this_fiber.local_.test)
      this_fiber.local_.test = 'fiber'
      this_fiber.yield()
      coroutine.wrap(function() print(this_fiber.local_.test) end)()
    end):join()
    print(this_fiber.local_.test)
  ]])

  program("knows its main fiber, and an id for each", "true\tstring\nfalse\tstring\ttrue\n", [[
    local main = this_fiber.id
    print(this_fiber.is_main, type(main))
    spawn(function() print(this_fiber.is_main, type(this_fiber.id), this_fiber.id ~= main) end):join()
  ]])

  program("tells a generic error from others", "true\tfalse\ttrue\ntrue\n", [[
    local ip = require 'ip'
    local generic_error = require 'generic_error'
    local sock = ip.udp.socket.new()
    sock:open('v4')
    sock:bind(ip.address.loopback_v4(), 0)
    local f = spawn(function() return pcall(function() sock:receive(byte_span.new(1)) end) end)
    this_fiber.yield()
    sock:close()
    local _, err = f:join()
    local same = err:togeneric() == generic_error.ECANCELED
    print(same, err:togeneric() == generic_error.EINVAL, err.category == 'system')
    print(generic_error.EINVAL.category == 'generic')
  ]])

  program("finds every name of Emilua's list in generic_error, and no other", "false\nfalse\nfalse\n", [[
    local generic_error = require 'generic_error'
    for name in ([=[
      EAFNOSUPPORT EADDRINUSE EADDRNOTAVAIL EISCONN E2BIG EDOM EFAULT EBADF EBADMSG EPIPE ECONNABORTED EALREADY
      ECONNREFUSED ECONNRESET EXDEV EDESTADDRREQ EBUSY ENOTEMPTY ENOEXEC EEXIST EFBIG ENAMETOOLONG ENOSYS EHOSTUNREACH
      EIDRM EILSEQ ENOTTY EINTR EINVAL ESPIPE EIO EISDIR EMSGSIZE ENETDOWN ENETRESET ENETUNREACH ENOBUFS ECHILD ENOLINK
      ENOLCK ENOMSG ENOPROTOOPT ENOSPC ENXIO ENODEV ENOENT ESRCH ENOTDIR ENOTSOCK ENOTCONN ENOMEM ENOTSUP ECANCELED
      EINPROGRESS EPERM EOPNOTSUPP EWOULDBLOCK EOWNERDEAD EACCES EPROTO EPROTONOSUPPORT EROFS EDEADLK EAGAIN ERANGE
      ENOTRECOVERABLE ETXTBSY ETIMEDOUT ENFILE EMFILE EMLINK ELOOP EOVERFLOW EPROTOTYPE
    ]=]):gmatch('%S+') do
      assert(generic_error[name]:togeneric() == generic_error[name], name)
    end
    for _, name in ipairs { 'EUNHEARDOF', 'INTERRUPTED', 'EAI_NONAME' } do
      print((pcall(function() return generic_error[name] end)))
    end
  ]])

  program("requires byte_span, or has it as a global", "true\tab\t4\t8\tcd\n", [[
    local byte_span_module = require 'byte_span'
    local span = byte_span.new(4, 8)
    span:copy('abcd')
    print(byte_span_module == byte_span, byte_span_module.append('a', nil, 'b'), #span, span.capacity, span:slice(3))
  ]])

  local generator = [[
    local ip = require 'ip'
    local sock = ip.udp.socket.new()
    sock:open('v4')
    sock:bind(ip.address.loopback_v4(), 0)
    local function send(text) sock:send_to(byte_span.append(text), sock.local_address, sock.local_port) end
    local function datagrams()
      return coroutine.wrap(function()
        local buf = byte_span.new(16)
        while true do
          coroutine.yield(tostring(buf:slice(1, sock:receive(buf))))
        end
      end)
    end
  ]]

  program("receives inside a generator, in the main body and in a fiber", "one\ntwo\nthree\n", generator .. [[
    spawn(function() send('one') sleep(0.01) send('two') sleep(0.01) send('three') end)
    local next_datagram = datagrams()
    print(next_datagram())
    spawn(function()
      print(next_datagram())
      print(datagrams()())
    end):join()
  ]])

  program("interrupts a fiber that waits inside a generator", "true\n", generator .. [[
    local f = spawn(function() datagrams()() print('not reached') end)
    this_fiber.yield()
    f:interrupt()
    f:join()
    print(f.interruption_caught)
  ]])
end)

describe("a fiber's handle under ip.emilua", function()
  after_each(cleaned_up)

  program("is joinable until a join waits, has ended, or it was detached", "true\nfalse\nfalse\nfalse\n", [[
    local f = spawn(function() this_fiber.yield() this_fiber.yield() end)
    print(f.joinable)
    local joiner = spawn(function() f:join() end)
    this_fiber.yield()
    print(f.joinable)
    joiner:join()
    print(f.joinable)
    local detached = spawn(function() end)
    detached:detach()
    print(detached.joinable)
  ]])

  program("may be joined again after its joiner was interrupted", "true\ntrue\n7\n", [[
    local released = false
    local f = spawn(function()
      while not released do this_fiber.yield() end
      return 7
    end)
    local joiner = spawn(function() f:join() end)
    this_fiber.yield()
    joiner:interrupt()
    joiner:join()
    print(joiner.interruption_caught)
    print(f.joinable)
    released = true
    print(f:join())
  ]])

  program("raises EINVAL for what a handle cannot do before, or after, join and detach", ("true\n"):rep(6), [[
    local ip = require 'ip'
    local function is_invalid(fn)
      local ok, err = pcall(fn)
      print(not ok and err == ip.error.EINVAL)
    end
    local f = spawn(function() end)
    is_invalid(function() return f.interruption_caught end)
    f:join()
    is_invalid(function() f:join() end)
    is_invalid(function() f:detach() end)
    local detached = spawn(function() end)
    detached:detach()
    is_invalid(function() detached:join() end)
    is_invalid(function() detached:detach() end)
    is_invalid(function() return detached.interruption_caught end)
  ]])

  program("no longer interrupts once it is detached", "ran\n", [[
    local f = spawn(function() sleep(0.01) print('ran') end)
    f:detach()
    f:interrupt()
  ]])

  program("has no other properties, and is called on handles only", ("false\n"):rep(7), [[
    local f = spawn(function() end)
    print((pcall(function() return f.unknown end)))
    print((pcall(function() f.joinable = true end)))
    print((pcall(f.join, {})))
    print((pcall(f.interrupt)))
    print((pcall(spawn, 'no function')))
    print((pcall(function() return this_fiber.unknown end)))
    print((pcall(function() this_fiber.local_ = {} end)))
  ]])
end)

describe("lua5.4 -l ip.emilua script.lua", function()
  after_each(cleaned_up)

  program("ends when all fibers have ended, detached ones too", "end of the main body\nfirst\nsecond\n", [[
    spawn(function()
      sleep(0.01)
      print('first')
      spawn(function() sleep(0.01) print('second') end):detach()
    end):detach()
    print('end of the main body')
  ]])

  it("gives the script its arguments", support.with_loop(function()
    local path = write_file "print(arg[0], arg[2], select('#', ...), ...)"
    local output = process.run(process.lua("-lip.emilua", path, "one", "two"))
    assert.equal(("%s\ttwo\t2\tone\ttwo\n"):format(path), output)
  end, 30))

  it("runs a script from the standard input", support.with_loop(function()
    local path = write_file "spawn(function() print(arg[0]) end) print(...)"
    local output, errors, code = process.run { "sh", "-c", table.concat(process.lua(), " ")
      .. " -l ip.emilua - word <" .. path }
    assert.equal("", errors)
    assert.equal("word\n-\n", output)
    assert.equal(0, code)
  end, 30))

  it("ends with 1 and a traceback for an error of the main body, whatever other fibers would do",
    support.with_loop(function()
      local output, errors, code = run [[
        spawn(function() sleep(0.01) print('not reached') end)
        local function failing() error('of the main body') end
        failing()
      ]]
      assert.equal("", output)
      assert.equal(1, code)
      assert.matches("^[^\n]*lua[^\n]*: [^\n]*:2: of the main body\nstack traceback:\n.*in local 'failing'", errors)
    end, 30))

  it("shows error values with a traceback, too", support.with_loop(function()
    local _, errors, code = run [[
      local ip = require 'ip'
      ip.udp.socket.new():receive(byte_span.new(1))
    ]]
    assert.equal(1, code)
    assert.matches("receive: [^\n]* %(EBADF%): the socket is not open\nstack traceback:", errors)
    _, errors, code = run "error({})"
    assert.equal(1, code)
    assert.matches("%(error object is a table value%)\nstack traceback:", errors)
    _, errors, code = run "error(setmetatable({}, { __tostring = function() error('no text') end }))"
    assert.equal(1, code)
    assert.matches("%(error object is a table value%)\nstack traceback:", errors)
  end, 30))

  it("shows a fiber's error with its traceback, and lets the others go on", support.with_loop(function()
    local output, errors, code = run [[
      spawn(function() error('of the fiber') end)
      spawn(function() sleep(0.01) print('other') end)
    ]]
    assert.equal("other\n", output)
    assert.matches(":1: of the fiber\nstack traceback:", errors)
    assert.equal(0, code)
  end, 30))

  it("says nothing of an interrupted fiber", support.with_loop(function()
    prints("", "spawn(function() sleep(1000) end):interrupt()")
  end, 30))

  it("ends with 1 for a script with a syntax error, and for one that is not there", support.with_loop(function()
    local output, errors, code = run "print('not reached') x x"
    assert.equal("", output)
    assert.matches("syntax error near 'x'\n$", errors)
    assert.equal(1, code)
    local missing = "/nonexistent/script.lua"
    output, errors, code = process.run(process.lua("-l", "ip.emilua", missing))
    assert.equal("", output)
    assert.matches("cannot open " .. missing, errors)
    assert.equal(1, code)
  end, 30))

  it("keeps the exit code that the script gives to os.exit", support.with_loop(function()
    local _, _, code = run "spawn(function() os.exit(3) end) sleep(1000)"
    assert.equal(3, code)
  end, 30))

  it("ends on Ctrl-C, while it waits and while it computes", support.with_loop(function()
    for _, source in ipairs { "sleep(1000)", "while true do end", "spawn(function() sleep(1000) end)" } do
      local script <close> = process.start(emilua("io.stderr:write('ready\\n') " .. source))
      script:wait_for("ready\n")
      script:signal("INT")
      assert.equal(1, script:wait())
      assert.matches("interrupted!\nstack traceback:", script:errors())
    end
  end, 60))

  it("ends with 1 when what is left waits for what can never come", support.with_loop(function()
    local _, errors, code = run "spawn(function() sleep(math.huge) end)"
    assert.matches("EDEADLK", errors)
    assert.equal(1, code)
  end, 30))

  it("only defines its globals where there is no script", support.with_loop(function()
    local output, errors, code = process.run(process.lua("-l", "ip.emilua", "-e", "print(type(spawn))"))
    assert.equal("function\n", output)
    assert.equal("", errors)
    assert.equal(0, code)
  end, 30))

  it("leaves the script to the interpreter with -i, which goes on after it", support.with_loop(function()
    local output, _, code = process.run(process.lua("-i", "-l", "ip.emilua", write_file "print('once', type(spawn))"))
    local _, times = output:gsub("once\tfunction\n", "")
    assert.equal(1, times)
    assert.equal(0, code)
  end, 30))

  it("refuses options that come after it, which would be lost", support.with_loop(function()
    local path = write_file "print('not reached')"
    for _, words in ipairs { { "-e", "print(1)" }, { "-lstring" } } do
      local command = process.lua("-l", "ip.emilua", table.unpack(words))
      command[#command + 1] = path
      local output, errors, code = process.run(command)
      assert.equal("", output)
      assert.matches("ip%.emilua last", errors)
      assert.equal(1, code)
    end
    local output = process.run(process.lua("-e", "x = 1", "-l", "ip.emilua", write_file "print(x)"))
    assert.equal("1\n", output)
  end, 30))

  program("does not run a script again that requires ip.emilua", "once\ttrue\n", [[
    print('once', require('ip.emilua').spawn == spawn)
  ]])
end)

describe("global names", function()
  after_each(cleaned_up)

  -- What loading modules changes in _G, as sorted words.
  local compare = [[
    local before = {}
    for name, value in pairs(_G) do before[name] = value end
    for i = 1, #arg do require(arg[i]) end
    local changed = {}
    for name, value in pairs(_G) do
      if before[name] ~= value then changed[#changed + 1] = (before[name] and "changed " or "new ") .. name end
    end
    for name in pairs(before) do
      if _G[name] == nil then changed[#changed + 1] = "gone " .. name end
    end
    table.sort(changed)
    print(table.concat(changed, ", "))
  ]]

  local function changed_by(...)
    local output, errors, code = process.run(process.lua(write_file(compare), ...))
    assert.equal("", errors)
    assert.equal(0, code)
    return output
  end

  local function modules()
    local names = {}
    local listing <close> = assert(io.popen("find lua -name '*.lua'"))
    for path in listing:lines() do
      local name = path:gsub("^lua/", ""):gsub("%.lua$", ""):gsub("/init$", ""):gsub("/", ".")
      names[#names + 1] = name
    end
    assert.truthy(#names > 8)
    return names
  end

  it("are set by no module but ip.emilua", support.with_loop(function()
    for _, name in ipairs(modules()) do
      if name ~= "ip.emilua" then assert.equal("\n", changed_by(name), name) end
    end
  end, 60))

  it("that ip.emilua sets are byte_span, sleep, spawn, this_fiber and coroutine", support.with_loop(function()
    assert.equal("changed coroutine, new byte_span, new sleep, new spawn, new this_fiber\n", changed_by("ip.emilua"))
  end, 30))

  it("leave generic_error and time to ip.emilua", support.with_loop(function()
    local _, _, code = process.run(process.lua("-l", "ip", "-e",
      "for _, name in ipairs { 'generic_error', 'time', 'mutex', 'condition_variable' } do "
        .. "assert(not pcall(require, name)) end"))
    assert.equal(0, code)
  end, 30))
end)
