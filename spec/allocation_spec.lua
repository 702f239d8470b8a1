-- Failing allocations: a C host fails the k-th allocation and all after it, for every k.

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
end)
