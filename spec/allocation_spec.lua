-- Failing allocations: a C host fails the k-th allocation of Lua and all after it, for every k; and the system refuses
-- the memory that an option needs.

local support = require "spec.support"

local directory = os.getenv("LUA_IP_BUILD")

local function run_host(scenario)
  local command = ("%s/failing_allocator spec/host/%s.lua 2>&1"):format(directory, scenario)
  local pipe = assert(io.popen(command))
  local output = pipe:read("a")
  local _, _, code = pipe:close()
  return code, output
end

describe("a lack of memory", function()
  it("raises wherever it strikes, and neither crashes nor leaks", function()
    if directory == nil then return pending("LUA_IP_BUILD does not name a build with host programs") end
    local code, output = run_host("allocation_scenario")
    assert.equal(0, code, output)
    assert.matches("%d+ allocations", output)
  end)

  it("leaves a socket without coalesce as it was, where that option's memory cannot be had", function()
    if (os.getenv("LUA_IP_MODE") or "plain") ~= "plain" then return pending("memory is not this process's own") end
    if not os.execute("command -v prlimit >/dev/null 2>&1") then return pending("prlimit is not installed") end
    local output, code = support.run_program [[
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
    ]]
    assert.equal("false\tcoalesce: not enough memory (ENOMEM)\tfalse\t0\n0\tplain\ntrue\t1\n", output)
    assert.equal(0, code)
  end)
end)
