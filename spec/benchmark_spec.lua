-- What of the benchmarks does not depend on the machine: lists that name what exists, and the way from rows
-- to a page.
local contenders = require "bench.contenders"
local plots = require "bench.plots"
local report = require "bench.report"
local results = require "bench.results"
local summary = require "bench.summary"
local targets = require "bench.targets"
local workloads = require "bench.workloads"
local assertions = require "spec.support.assertions"

local assert_contains = assertions.assert_contains

local function exists(path)
  local file = io.open(path)
  if file then file:close() end
  return file ~= nil
end

local function by_id(id)
  for _, workload in ipairs(workloads) do
    if workload.id == id then return workload end
  end
end

local function rows_of(text)
  return results.read(text:gmatch("([^\n]+)\n"))
end

-- One row: 1000 datagrams in 0.01 s unless told otherwise; `cpu` in nanoseconds per datagram.
local function row(workload, round, contender, cpu, more)
  local fields = { workload = workload, round = round, contender = contender, status = "ok", seconds = 0.01,
    datagrams = 1000, cpu = cpu * 1000, lost = 0, delay = 0, round_trip = 0, round_trip_p99 = 0 }
  for key, value in pairs(more or {}) do fields[key] = value end
  return fields
end

local three_rounds = {
  row("echo", 1, "floor-a", 1000), row("echo", 1, "lua-ip", 1100),
  row("echo", 2, "lua-ip", 2080), row("echo", 2, "floor-a", 2000),
  row("echo", 3, "floor-a", 1000), row("echo", 3, "lua-ip", 1020),
}

describe("the lists of the benchmarks", function()
  it("name files that exist, workloads that exist and every contender once", function()
    local seen = {}
    for _, contender in ipairs(contenders) do
      local name, command, takes_part = contender[1], contender[2], contender[3]
      assert.is_nil(seen[name], name)
      seen[name] = true
      assert.is_true(exists("bench/" .. command:match("^%S+")), command)
      for id in takes_part:gmatch("%S+") do assert(by_id(id), id) end
    end
  end)

  it("compare with contenders that take part", function()
    local takes_part = {}
    for _, contender in ipairs(contenders) do
      for id in contender[3]:gmatch("%S+") do
        takes_part[id .. "/" .. contender[1]] = true
        for _, sockets in ipairs(by_id(id).variants or {}) do
          takes_part[("%s/%s, %d sockets"):format(id, contender[1], sockets)] = true
        end
      end
    end
    for _, workload in ipairs(workloads) do
      if workload.baseline ~= "self" then assert(takes_part[workload.id .. "/" .. workload.baseline], workload.id) end
      for _, name in ipairs(workload.noise or {}) do assert(takes_part[workload.id .. "/" .. name], name) end
      assert(summary.figures[workload.figure or "cpu"], workload.id)
    end
    for _, target in ipairs(targets) do
      assert(takes_part[target[1] .. "/" .. target[2]], target.what)
      assert(takes_part[target[1] .. "/" .. target[3]], target.what)
    end
  end)
end)

describe("a results file", function()
  it("gives back the rows and what was said about them", function()
    local path = os.tmpname()
    local writer = results.writer(path)
    writer.about("machine", "a\tmachine")
    writer.row(row("echo", 1, "floor-a", 1700, { lost = 3 }))
    writer.row { workload = "echo", round = 1, contender = "other", status = "unavailable", reason = "not here" }
    writer.close()
    local rows, about = results.read(io.lines(path))
    os.remove(path)
    assert.equal("a\tmachine", about.machine)
    assert.equal(2, #rows)
    assert.equal("floor-a", rows[1].contender)
    assert.equal(1700000, rows[1].cpu)
    assert.equal(3, rows[1].lost)
    assert.equal("not here", rows[2].reason)
  end)

  it("refuses a line that is no row", function()
    assert.has_error(function() rows_of("echo\t1\tfloor-a\n") end)
  end)
end)

describe("a ratio of the benchmarks", function()
  it("is the median of the ratios within each round, not the ratio of the medians", function()
    local ratio = summary.ratio(three_rounds, "echo", "lua-ip", "floor-a")
    assert.near(1.04, ratio.median, 1e-9) -- 1.10, 1.04, 1.02; the medians' ratio would be 1.10
    assert.near(1.03, ratio.low, 1e-9)
    assert.near(1.07, ratio.high, 1e-9)
  end)

  it("leaves out rounds in which one of the two is missing or has failed", function()
    local rows = { table.unpack(three_rounds) }
    rows[#rows + 1] = row("echo", 4, "lua-ip", 9000)
    rows[#rows + 1] = row("echo", 5, "lua-ip", 9000)
    rows[#rows + 1] = row("echo", 5, "floor-a", 1000, { status = "failed" })
    assert.equal(3, summary.ratio(rows, "echo", "lua-ip", "floor-a").count)
    assert.is_nil(summary.ratio(rows, "echo", "lua-ip", "floor-b"))
  end)
end)

describe("the page of the benchmarks", function()
  local rows = { table.unpack(three_rounds) }
  rows[#rows + 1] = row("echo", 1, "floor-a again", 990)
  rows[#rows + 1] = row("echo", 1, "lua-ip coalesce", 0, { status = "unavailable", reason = "no such option" })
  rows[#rows + 1] = row("echo", 1, "floor-b", 4000, { seconds = 0.004, datagrams = 1000, lost = 1000 })
  rows[#rows + 1] = row("bulk", 1, "floor-c", 0, { datagrams = 1000000, cpu = 1e8, seconds = 0.12 })
  local page = report.page(rows, { date = "today", machine = "this one", rounds = 3, seconds = 0.25 }, "plots")

  local function has(line)
    assert_contains(page, "\n" .. line .. "\n")
  end

  it("tells where and when", function()
    has "- date: today"
    has "- machine: this one"
    has "- rounds: 3 of 0.25 s each"
  end)

  it("tells which targets are met, missed, and not measured", function()
    has "| echo, one datagram per call | lua-ip / floor-a | ≤ 1.05 | 1.04 (1.03–1.07) | yes |"
    has "| the same in `coalesce` mode | lua-ip coalesce / floor-a | ≤ 0.85 | – | not measured |"
    local slow = report.page({ row("echo", 1, "floor-a", 1000), row("echo", 1, "lua-ip", 1060) }, {})
    assert_contains(slow, "| 1.06 (1.06–1.06) | **no** |")
  end)

  it("explains a target that was missed, and only such a one", function()
    local function page_of(cost)
      return report.page({ row("ping-pong", 1, "floor-a", 1000), row("ping-pong", 1, "lua-ip", cost) }, {})
    end
    assert_contains(page_of(1200), "- **ping-pong on one core**: ")
    assert.is_nil(page_of(1000):find("- **ping-pong on one core**: ", 1, true))
  end)

  it("has the noise", function()
    has "| Echo, saturated | floor-a | 0.990 (0.990–0.990) |"
  end)

  it("has each contender's CPU, rate, share of the core and loss, and marks rates that the client has set", function()
    has "| lua-ip | 1.04 (1.03–1.07) | 1.10 | 100,000 \\* | 11 % | 0 |"
    has "| floor-b | 4.00 (4.00–4.00) | 4.00 | 250,000 | 100 % | 50.0 % |"
    has "\\* The server used less than 95 % of its core: the client set the rate."
  end)

  it("has rates in Gbit/s", function()
    has "| floor-c | 1.00 (1.00–1.00) | 80.0 | 0.10 | 83 % | 0 |"
  end)

  it("names who was not measured, and why", function()
    has "Not measured: lua-ip coalesce: no such option"
  end)

  it("shows the plots", function()
    has "![Echo, saturated](plots/echo.svg)"
  end)

  it("says so when other processes had the server's core", function()
    assert.is_nil(page:find("not quiet", 1, true))
    local rows_of_two = { row("echo", 1, "floor-a", 1000, { delay = 600000 }), row("echo", 1, "lua-ip", 1000) }
    local disturbed = report.page(rows_of_two, {})
    assert_contains(disturbed, "in 1 of 2 measurements")
    -- On one core it is the client who has it meanwhile.
    local expected = report.page({ row("ping-pong", 1, "floor-a", 1000, { delay = 600000 }) }, {})
    assert.is_nil(expected:find("not quiet", 1, true))
  end)
end)

describe("a plot of the benchmarks", function()
  it("has a bar for each contender, cut off where it is too long, and none for a floor's second name", function()
    local three = {
      row("echo", 1, "floor-a", 1000), row("echo", 1, "floor-a again", 1000), row("echo", 1, "slow", 9000),
    }
    local script = plots.script(three, by_id "echo", "out.svg")
    assert(script:find('\n1 1.0000 1.0000 1.0000 %d+ "1.00"\n'), script)
    assert(script:find('\n0 4.0000 4.0000 4.0000 %d+ "9.00 →"\n'), script)
    assert.is_nil(script:find("again", 1, true))
  end)

  it("is not made of a single contender", function()
    assert.is_nil(plots.script({ row("echo", 1, "floor-a", 1000) }, by_id "echo", "out.svg"))
  end)
end)
