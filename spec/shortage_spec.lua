-- What is promised where descriptors or threads are short: an error, after one collection, and never the end of the
-- process.
local process = require "spec.support.process"
local support = require "spec.support"

-- `free(n)` leaves n free descriptors; `garbage(n)` makes n sockets that only a collection closes.
local PRELUDE = [[
  local ip = require "ip"
  local held = {}
  local function free(count)
    while true do
      local file = io.open("/dev/null")
      if not file then break end
      held[#held + 1] = file
    end
    for _ = 1, count do table.remove(held):close() end
  end
  local function try(...)
    local ok, err = pcall(...)
    print(ok and "ok" or tostring(err):match("%((E%u+)%)") or err)
    return ok and err
  end
]]

local function run(program, count)
  return support.run_program(PRELUDE .. program, count and tostring(count) or "", "ulimit -n 64")
end

-- What the first loop of a process needs, beside the socket itself: more with newer versions of libuv. Counted by what
-- is left, because a process may have inherited descriptors of any number.
local LOOP <const> = math.tointeger(tonumber((run [[
  local function count_free()
    free(0)
    local count = #held
    while #held > 0 do table.remove(held):close() end
    return count
  end
  local before = count_free()
  local sock = ip.udp.bind("127.0.0.1", 0)
  print(before - count_free() - 1)
]])))

describe("few free descriptors", function()
  if os.getenv("LUA_IP_MODE") == "valgrind" then return pending("valgrind has descriptors of its own") end

  for count = 0, LOOP + 2 do
    local enough = count > LOOP
    local outcome = enough and "ok" or "EMFILE"
    it(("at first use, %d of them: %s"):format(count, outcome), function()
      for _, use in ipairs {
        "ip.udp.bind, '127.0.0.1', 0",
        "ip.fiber.sleep, 0",
        "ip.fiber.wait_fd, 0, 'r'",
        "ip.udp.get_address_info, '127.0.0.1', 1",
      } do
        local output, code = run(("free(tonumber(arg[1])) collectgarbage('stop') try(%s)"):format(use), count)
        assert.equal(0, code, use .. ": " .. output)
        assert.is_truthy(output:find("^%u+\n$") or output == "ok\n", use .. ": " .. output)
        if use:find("bind") then assert.equal(outcome .. "\n", output) end
      end
    end)
  end

  it("end neither open, dup nor the first wait_fd, which raise EMFILE and work afterwards", function()
    local output = run [[
      local sock = ip.udp.bind("127.0.0.1", 0)
      local fd = ip.udp.bind("127.0.0.1", 0):release()
      free(0)
      local new = ip.udp.socket.new()
      try(new.open, new, "v4")
      try(fd.dup, fd)
      try(ip.udp.bind, "127.0.0.1", 0)
      try(ip.fiber.with_timeout, 0.01, ip.fiber.wait_fd, sock.native_handle, "r")
      table.remove(held):close()
      try(ip.fiber.with_timeout, 0.01, ip.fiber.wait_fd, sock.native_handle, "r")
      table.remove(held):close()
      local copy = try(fd.dup, fd)
      copy:close()
      try(new.open, new, "v4")
    ]]
    assert.equal("EMFILE\nEMFILE\nEMFILE\nEMFILE\nETIMEDOUT\nok\nok\n", output)
  end)

  it("are named where an interface is looked up, and hide none", function()
    local output = run [[
      local new = ip.udp.bind("127.0.0.1", 0)
      free(0)
      try(ip.interfaces)
      try(new.set_option, new, "multicast_interface", "lo")
      print((select(2, ip.address.parse("fe80::1%lo"))))
      table.remove(held)
      try(ip.interfaces)
      free(0)
      table.remove(held)
      try(new.set_option, new, "multicast_interface", "lo")
    ]]
    assert.is_truthy(output:find("^EMFILE\nEMFILE\n[^\n]*too many open files[^\n]*\nok\nok\n$"), output)
  end)

  it("leave timers, signals and sockets that are open at work", function()
    local output = run [[
      local sock = ip.udp.bind("127.0.0.1", 0)
      local client = ip.udp.connect("127.0.0.1", sock.local_port)
      free(0)
      try(ip.fiber.sleep, 0.001)
      try(ip.fiber.with_timeout, 0.001, ip.fiber.wait_signal, "SIGUSR1")
      client:send("x")
      try(sock.receive_string, sock)
    ]]
    assert.equal("ok\nETIMEDOUT\nok\n", output)
  end)

  it("are first looked for among garbage: by the loop, open, bind, dup and wait_fd", function()
    local output = run([[
      collectgarbage("stop")
      local function garbage() -- files that nobody holds
        free(0)
        for _ = 1, tonumber(arg[1]) do table.remove(held) end
      end
      garbage()
      local sock = try(ip.udp.bind, "127.0.0.1", 0)
      local new, fd = ip.udp.socket.new(), ip.file_descriptor.new(0)
      garbage()
      try(new.open, new, "v4")
      garbage()
      local copy = try(fd.dup, fd)
      garbage()
      try(ip.fiber.with_timeout, 0.001, ip.fiber.wait_fd, sock.native_handle, "r")
      garbage()
      try(ip.udp.connect, "127.0.0.1", 9)
      fd:release()
      copy:close()
    ]], LOOP + 1)
    assert.equal("ok\nok\nok\nETIMEDOUT\nok\n", output)
  end)
end)

describe("few free descriptors, as the resolver meets them,", function()
  if os.getenv("LUA_IP_MODE") == "valgrind" then return pending("valgrind has descriptors of its own") end

  local LOOK_UPS <const> = [[
    local function look_up()
      try(ip.udp.get_address_info, "localhost", 53)
      try(ip.udp.get_address_info, "localhost", "domain")
      try(ip.udp.get_address_info, "::1", "domain")
      try(ip.udp.get_name_info, "127.0.0.1", 40001)
    end
  ]]

  it("keep their name: not one free is EMFILE, whatever the resolver makes of it", function()
    for _, warm in ipairs { "", "look_up()" } do -- glibc fails in other ways once it has found all of its modules
      local output = run(LOOK_UPS .. warm .. [[
        ip.fiber.sleep(0)
        print("none")
        free(0)
        look_up()
        try(ip.udp.get_address_info, "::1", 53)
        try(ip.udp.get_name_info, "::1", 53, ip.address_info_flag.numeric_host | ip.address_info_flag.numeric_service)
        held = {}
        collectgarbage()
        look_up()
      ]])
      assert.equal("none\n" .. ("EMFILE\n"):rep(4) .. ("ok\n"):rep(6), output:match("none.*"))
    end
  end)

  it("are no reason to doubt an answer that one descriptor suffices for", function()
    local output = run [[
      ip.fiber.sleep(0)
      free(1)
      try(ip.udp.get_address_info, "localhost", 53)
      try(ip.udp.get_address_info, "localhost", "no-such-service")
    ]]
    assert.is_truthy(output:find("^ok\n[^\n]*EAI_SERVICE"), output)
  end)

  it("are first looked for among garbage", function()
    local output = run [[
      ip.fiber.sleep(0)
      collectgarbage("stop")
      free(0)
      for _ = 1, 7 do table.remove(held) end
      try(ip.udp.get_address_info, "localhost", 53)
    ]]
    assert.equal("ok\n", output)
  end)

  for count = 0, 3 do
    for _, threads in ipairs { 1, 4, 16 } do
      it(("%d of them, %d threads: of many look-ups at once each is answered or raises EMFILE"):format(count, threads),
        function()
          local output, code = support.run_program(PRELUDE .. [[
            ip.fiber.sleep(0)
            free(tonumber(arg[1]))
            local fibers = {}
            for i = 1, 100 do
              fibers[i] = ip.fiber.spawn(try, ip.udp.get_address_info, "localhost", i % 2 == 0 and "domain" or 53)
            end
            for _, each in ipairs(fibers) do each:join() end
          ]], tostring(count), "ulimit -n 40; export UV_THREADPOOL_SIZE=" .. threads)
          local other = output:gsub("ok\n", ""):gsub("EMFILE\n", "")
          assert.equal("", other)
          assert.equal(0, code)
          assert.equal(count == 0, output:find("ok", 1, true) == nil, output)
        end)
    end
  end

  it("of the whole system are ENFILE, before and after", function()
    local build = os.getenv("LUA_IP_BUILD")
    local library = build and build .. "/failing_socket.so"
    local file = library and io.open(library)
    if (os.getenv("LUA_IP_MODE") or "plain") ~= "plain" or file == nil then
      return pending("needs a plain build with IP_HOST_PROGRAMS")
    end
    file:close()
    local switch = os.tmpname()
    os.remove(switch)
    local output = support.run_program(PRELUDE .. ([[
      local function fail_with(number)
        local file = assert(io.open("%s", "w"))
        file:write(number)
        file:close()
      end
      try(ip.udp.get_address_info, "localhost", 53)
      local looking = ip.fiber.spawn(try, ip.udp.get_address_info, "localhost", "no-such-service")
      ip.fiber.spawn(fail_with, 23) -- after the look-up has begun, before the loop polls
      looking:join()
      try(ip.udp.get_address_info, "localhost", 53)
      fail_with(1) -- EPERM: where a program may have no sockets, names are looked up all the same
      try(ip.udp.get_address_v4_info, "localhost", 53)
    ]]):format(switch), "", ("export LD_PRELOAD=%s FAILING_SOCKET=%s"):format(library, switch))
    os.remove(switch)
    assert.equal("ok\nENFILE\nENFILE\nok\n", output)
  end)
end)

describe("few threads", function()
  local can_limit = process.exists("setpriv") and process.exists("prlimit") and os.execute("test $(id -u) = 0")
    and (os.getenv("LUA_IP_MODE") or "plain") == "plain"
  local it_limited = can_limit and it or function(name) pending(name .. " (needs root, setpriv and prlimit)") end

  -- Runs a program as a user that nobody else is, who may have so many threads.
  local function run_limited(threads, program, environment)
    local path = os.tmpname()
    local file = assert(io.open(path, "w"))
    file:write(PRELUDE, program)
    file:close()
    os.execute("chmod a+r " .. path)
    local command = ("%s setpriv --reuid=54321 --clear-groups prlimit --nproc=%d %s %s 2>&1"):format(environment or "",
      threads, os.getenv("LUA_IP_LUA") or "lua5.4", path)
    local pipe = assert(io.popen(command))
    local output = pipe:read("a")
    local _, _, code = pipe:close()
    os.remove(path)
    return output, code
  end

  local LOOK_UPS = [[
    for _ = 1, 2 do
      try(ip.udp.get_address_info, "localhost", 53)
      try(ip.udp.get_name_info, "127.0.0.1", 53)
    end
    try(ip.fiber.sleep, 0)
  ]]

  it_limited("make look-ups raise EAGAIN, each of them, and nothing else", function()
    for threads = 1, 4 do
      local output, code = run_limited(threads, LOOK_UPS)
      assert.equal(("EAGAIN\n"):rep(4) .. "ok\n", output)
      assert.equal(0, code)
    end
  end)

  it_limited("are enough when there are as many as the pool has", function()
    for _ = 1, 5 do
      assert.equal(("ok\n"):rep(5), (run_limited(5, LOOK_UPS)))
    end
    assert.equal(("ok\n"):rep(5), (run_limited(2, LOOK_UPS, "UV_THREADPOOL_SIZE=1")))
    assert.equal(("EAGAIN\n"):rep(4) .. "ok\n", (run_limited(8, LOOK_UPS, "UV_THREADPOOL_SIZE=8")))
  end)
end)
