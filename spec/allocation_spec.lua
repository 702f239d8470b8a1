-- Failing allocations: a C host fails the k-th allocation of Lua and all after it, for every k; and the
-- system refuses the memory that an option needs.

local assertions = require "spec.support.assertions"
local hosts = require "spec.support.hosts"
local platform = require "spec.support.platform"
local process = require "spec.support.process"
local support = require "spec.support"

describe("a lack of memory", function()
  hosts.it("failing_allocator")("raises wherever it strikes, and neither crashes nor leaks", function()
    local output, code = support.read_command(hosts.path("failing_allocator")
      .. " spec/host/allocation_scenario.lua 2>&1")
    assert.equal(0, code, output)
    assert.matches("%d+ allocations", output)
  end)

  it("leaves a socket without coalesce as it was, where that option's memory cannot be had", function()
    if not platform.is_plain then return pending("memory is not this process's own") end
    if not process.exists("prlimit") then return pending("prlimit is not installed") end
    assertions.assert_prints("false\tcoalesce: not enough memory (ENOMEM)\tfalse\t0\n0\tplain\ntrue\t1\n", [[
      local ip = require "ip"
      local a, b = ip.udp.bind("127.0.0.1", 0), ip.udp.bind("127.0.0.1", 0)
      local pid = io.open("/proc/self/stat"):read("n")
      -- Half a megabyte more than is used now; a coalescing socket asks for two.
      local used = tonumber(io.open("/proc/self/status"):read("a"):match("VmSize:%s*(%d+) kB"))
      assert(os.execute(("prlimit --pid %d --as=%d:"):format(pid, (used + 512) * 1024)))
      local ok, err = pcall(a.set_option, a, "coalesce", true)
      assert(os.execute(("prlimit --pid %d --as=unlimited:"):format(pid)))
      print(ok, err, a:get_option("coalesce"), a.send_queue_count)
      a:send_to("plain", "127.0.0.1", b.local_port)
      print(a.send_queue_count, (b:receive_string()))
      a:set_option("coalesce", true)
      a:send_to("kept", "127.0.0.1", b.local_port)
      print(a:get_option("coalesce"), a.send_queue_count)
    ]])
  end)
end)
