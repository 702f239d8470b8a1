-- Single system calls that fail: a library that is loaded before the others gives the error, in a C host that says
-- which call is to fail (spec/host/fuzz_host.c, faulty_system.c).

local hosts = require "spec.support.hosts"
local support = require "spec.support"

-- Runs a program in the host; returns what it prints. `host.fail_next(calls, code[, after])` is what it is for.
local function run(program)
  local path = support.write_file(('local host = require "fault_host"\nlocal ip = require "ip"\n%s'):format(program))
  local preloaded = (os.getenv("LD_PRELOAD") or "") .. " " .. hosts.path("faulty_system.so")
  local output, code = support.read_command(("LD_PRELOAD='%s' %s %s 2>&1"):format(
    preloaded, hosts.path("fuzz_host"), path))
  os.remove(path)
  if code ~= 0 then error(output, 0) end
  return output
end

local it_hosted = hosts.it("fuzz_host")

describe("a system call that fails", function()
  it_hosted("leaves no segment size behind in the system, where the library could not ask for segmentation", function()
    assert.equal("2\t3\n", run [[
      local a, b = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0, { receive_timeout = 5 })
      a:set_option("segment_size", 4)
      host.fail_next("getsockopt", ip.error.ENOMEM.code)
      a:send_to("aaaabb", "127.0.0.1", b.local_port)
      local count = 0
      repeat count = count + 1 until b:receive_string() == "bb"
      a:set_option("segment_size", 0)
      a:send_to("aaaabbbbcc", "127.0.0.1", b.local_port)
      local text = b:receive_string()
      print(count, text == "aaaabbbbcc" and 3 or text)
    ]])
  end)

  -- The first registration with the system is the alarm's: a timer is the first thing that is waited for.
  for _, name in ipairs { "ENOSPC", "ENOMEM" } do
    it_hosted("that watches for the earliest timer leaves timers to the loop: " .. name, function()
      assert.equal("slept\tETIMEDOUT\n", run(([[
        assert(ip.fiber.loop:step(0) == false)
        local sock = ip.udp.bind("127.0.0.1", 0, { receive_timeout = 0.005 })
        host.fail_next("epoll_ctl", ip.error.%s.code, 1) -- libuv tries it first, when it gets the descriptor
        ip.fiber.sleep(0.005)
        local _, err = pcall(sock.receive_string, sock)
        print("slept", err == ip.error.ETIMEDOUT and "ETIMEDOUT" or err)
      ]]):format(name)))
    end)
  end

  -- Two of four entries have been sent when the system takes no more.
  local function send_many(ends)
    return ([[
      ip.fiber.run(function()
        local a, b = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0)
        local batch = ip.udp.batch.new(4, 10)
        for i = 1, 4 do batch:set(i, "x", "127.0.0.1", b.local_port, { hops = 3 }) end -- in a system call each
        host.fail_next("a send", ip.error.EAGAIN.code, 2)
        local sending
        sending = ip.fiber.spawn(function()
          local _, err = pcall(%s)
          print(err.operation, err.sent)
        end)
        sending:join()
      end)
    ]]):format(ends)
  end

  it_hosted("ends a batch inside a deadline that is over with the number of entries sent", function()
    assert.equal("with_timeout\t2\n", run(send_many("ip.fiber.with_timeout, 0, a.send_many, a, batch")))
  end)
end)
