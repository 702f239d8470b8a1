--- Makes a page of Markdown from the rows of a results file.

local summary = require "bench.summary"
local targets = require "bench.targets"
local workloads = require "bench.workloads"

local report = {}

local SATURATED = 0.95 -- with a smaller share of its core, the server has waited for the client

-- --- text ---

local function thousands(number)
  local text = ("%.0f"):format(number)
  local grouped = text:reverse():gsub("(%d%d%d)", "%1,"):reverse()
  return (grouped:gsub("^,", ""))
end

local function with_range(spread, format)
  if not spread then return "–" end
  return ((format .. " (" .. format .. "–" .. format .. ")"):format(spread.median, spread.low, spread.high))
end

local function micro(spread, unit)
  return ("%.2f"):format(spread.median * unit)
end

local function table_of(lines, heads, rows)
  lines[#lines + 1] = "| " .. table.concat(heads, " | ") .. " |"
  lines[#lines + 1] = "|" .. (" --- |"):rep(#heads)
  for _, cells in ipairs(rows) do lines[#lines + 1] = "| " .. table.concat(cells, " | ") .. " |" end
  lines[#lines + 1] = ""
end

local WIDTH = 110

-- Folds a paragraph or a list item at WIDTH bytes, but not in a code span. Tables, headings and images stay
-- whole.
local function fold(line)
  if line:find("^[|#!]") then return line end
  local indent = line:find("^%- ") and "  " or ""
  local folded, width, in_code = {}, 0, false
  for gap, word in line:gmatch("(%s*)(%S+)") do
    local space = gap
    if not in_code and width > 0 and width + #space + #word > WIDTH then
      space, width = "\n" .. indent, #indent
    else
      width = width + #space
    end
    folded[#folded + 1] = space .. word
    width = width + #word
    if select(2, word:gsub("`", "")) % 2 == 1 then in_code = not in_code end
  end
  return table.concat(folded)
end

-- --- a workload ---

local function baseline_of(workload, contender)
  if workload.baseline ~= "self" then return workload.baseline end
  return contender:gsub(", %d+ sockets$", ", " .. workload.variants[1] .. " sockets")
end

-- On one core the rate depends on client and server together.
local function rate_cell(own, workload)
  local mark = own.busy.median < SATURATED and not workload.one_core and " \\*" or ""
  return thousands(own.rate.median) .. mark
end

local function loss_cell(own)
  if own.lost == 0 then return "0" end
  return ("%.1f %%"):format(own.lost * 100)
end

-- The columns of a table by figure: the heads, and a function that returns the cells of a contender.
local columns = {
  cpu = {
    { "CPU µs per datagram", "datagrams/s", "core busy", "lost" },
    function(own, workload)
      return { micro(own.cpu, 1e-3), rate_cell(own, workload), ("%.0f %%"):format(own.busy.median * 100),
        loss_cell(own) }
    end,
  },
  rate = {
    { "Gbit/s", "receiver's CPU µs per datagram", "receiver's core busy", "lost" },
    function(own, workload)
      return { ("%.1f"):format(own.rate.median * workload.size * 8 / 1e9), micro(own.cpu, 1e-3),
        ("%.0f %%"):format(own.busy.median * 100), loss_cell(own) }
    end,
  },
  round_trip = {
    { "median µs", "99th percentile µs", "CPU µs per datagram", "core busy" },
    function(own)
      return { micro(own.round_trip, 1e6), micro(own.round_trip_p99, 1e6), micro(own.cpu, 1e-3),
        ("%.0f %%"):format(own.busy.median * 100) }
    end,
  },
}

--- Returns the contenders of a workload: a list of { name, own, ratio } for those that ran, and a list of
--- { name, reason } for those that did not.
function report.entries(rows, workload)
  local ran, absent = {}, {}
  for _, name in ipairs(summary.contenders(rows, workload.id)) do
    local own, reason = summary.contender(rows, workload.id, name)
    if own then
      local ratio = summary.ratio(rows, workload.id, name, baseline_of(workload, name), workload.figure)
      ran[#ran + 1] = { name = name, own = own, ratio = ratio }
    else
      absent[#absent + 1] = { name = name, reason = reason }
    end
  end
  return ran, absent
end

--- Returns the entries of `ran` that a plot shows, without second names ("… again"); nil if there is nothing
--- to compare.
function report.bars(ran)
  local bars = {}
  for _, entry in ipairs(ran) do
    if entry.ratio and not entry.name:find(" again$") then bars[#bars + 1] = entry end
  end
  return #bars > 1 and bars or nil
end

local function workload_section(lines, rows, workload, plots)
  local ran, absent = report.entries(rows, workload)
  if #ran + #absent == 0 then return end
  local heads_and_cells = columns[workload.figure or "cpu"]
  local against = workload.baseline == "self" and "itself" or "`" .. workload.baseline .. "`"
  local heads = { "", "ratio to " .. against .. " (quartiles)", table.unpack(heads_and_cells[1]) }
  local cells, client_bound = {}, false
  for i, entry in ipairs(ran) do
    cells[i] = { entry.name, with_range(entry.ratio, "%.2f"),
      table.unpack(heads_and_cells[2](entry.own, workload)) }
    client_bound = client_bound or cells[i][4]:find("*", 1, true)
  end
  lines[#lines + 1] = "## " .. workload.title
  lines[#lines + 1] = ""
  lines[#lines + 1] = workload.about
  lines[#lines + 1] = ""
  if plots and report.bars(ran) then
    lines[#lines + 1] = ("![%s](%s/%s.svg)"):format(workload.title, plots, workload.id)
    lines[#lines + 1] = ""
  end
  if #ran > 0 then table_of(lines, heads, cells) end
  if client_bound then
    lines[#lines + 1] = "\\* The server used less than 95 % of its core: the client set the rate."
    lines[#lines + 1] = ""
  end
  for _, entry in ipairs(absent) do
    lines[#lines + 1] = ("Not measured: %s: %s"):format(entry.name, entry.reason)
    lines[#lines + 1] = ""
  end
end

-- --- the whole ---

local function is_met(target, ratio)
  -- Compare the digits that the page shows.
  local shown = tonumber(("%.2f"):format(ratio.median))
  if target.least then return shown >= target[4] end
  return shown <= target[4]
end

local function verdict(target, ratio)
  if not ratio then return "not measured" end
  return is_met(target, ratio) and "yes" or "**no**"
end

-- Reports a machine that was not quiet. Workloads on one core do not count: there the client takes the core.
local function disturbance_section(lines, rows)
  local disturbed, count = 0, 0
  for _, workload in ipairs(workloads) do
    if not workload.one_core then
      local some, of = summary.disturbed(rows, workload.id)
      disturbed, count = disturbed + some, count + of
    end
  end
  if disturbed == 0 then return end
  lines[#lines + 1] = ("**The machine was not quiet**: in %d of %d measurements other processes had the "
    .. "server's core for more than 5 %% of the time. This affects CPU and ratios less than rates.")
    :format(disturbed, count)
  lines[#lines + 1] = ""
end

local function target_section(lines, rows)
  local cells, reasons = {}, {}
  for _, target in ipairs(targets) do
    local id, contender, baseline, limit = table.unpack(target)
    local figure
    for _, workload in ipairs(workloads) do
      if workload.id == id then figure = workload.figure end
    end
    local ratio = summary.ratio(rows, id, contender, baseline, figure)
    if ratio or summary.took_part(rows, id, contender) then
      cells[#cells + 1] = { target.what, contender .. " / " .. baseline,
        (target.least and "≥ %.2f" or "≤ %.2f"):format(limit), with_range(ratio, "%.2f"),
        verdict(target, ratio) }
      if target.why and ratio and not is_met(target, ratio) then
        reasons[#reasons + 1] = ("- **%s**: %s"):format(target.what, target.why)
      end
    end
  end
  if #cells == 0 then return end
  lines[#lines + 1] = "## Targets"
  lines[#lines + 1] = ""
  table_of(lines, { "", "ratio of", "target", "measured (quartiles)", "met" }, cells)
  if #reasons == 0 then return end
  lines[#lines + 1] = "Why targets are missed (instructions counted by callgrind, memory by cachegrind):"
  lines[#lines + 1] = ""
  for _, reason in ipairs(reasons) do lines[#lines + 1] = reason end
  lines[#lines + 1] = ""
end

local function noise_section(lines, rows)
  local cells = {}
  for _, workload in ipairs(workloads) do
    local again, name = table.unpack(workload.noise or {})
    local ratio = again and summary.ratio(rows, workload.id, again, name, workload.figure)
    if ratio then cells[#cells + 1] = { workload.title, name, with_range(ratio, "%.3f") } end
  end
  if #cells == 0 then return end
  lines[#lines + 1] = "## Noise (A/A)"
  lines[#lines + 1] = ""
  lines[#lines + 1] = "One floor runs twice in each round, under two names. Without noise the ratio would "
    .. "be 1."
  lines[#lines + 1] = ""
  table_of(lines, { "", "floor", "ratio to itself (quartiles)" }, cells)
end

local ABOUT = { "date", "machine", "system", "versions" }

local function about_section(lines, about)
  for _, key in ipairs(ABOUT) do
    if about[key] then lines[#lines + 1] = ("- %s: %s"):format(key, about[key]) end
  end
  lines[#lines + 1] = ("- rounds: %s of %s s each"):format(about.rounds, about.seconds)
  lines[#lines + 1] = ""
end

-- Counts do not depend on the machine; specs check their limits.
local function count_section(lines, about)
  lines[#lines + 1] = "## Counts"
  lines[#lines + 1] = ""
  lines[#lines + 1] = "These figures are free of noise, so specs check their limits in every test run."
  lines[#lines + 1] = ""
  local cells = {
    { "system calls per echo, one datagram in flight", "≤ 3.1", "≤ 3.1" },
    { "system calls per echo, saturated", "≤ 2.05", "≤ 2.05" },
    { "system calls per datagram of a batch echo", "≤ 0.08", "≤ 0.08" },
    { "user instructions per echo (`datagrams`, `send_to`)", "≤ 2,000", "≤ 2,000" },
    { "garbage per `receive`, `send` and batch in the steady state", "0 bytes", "0 bytes" },
    { "memory of an idle socket with a fiber waiting on it, for 10,000 sockets", "≤ 1,800 bytes",
      "≤ 2,048 bytes" .. (about.memory and "; measured: " .. thousands(tonumber(about.memory)) or "") },
  }
  table_of(lines, { "", "target", "limit in the spec" }, cells)
  lines[#lines + 1] = "Memory: Lua takes about 1,200 bytes of an idle fiber, for a thread with the smallest "
    .. "stack and three call records; libuv's poll handle takes 160. The "
    .. "[design](design/measurements.md) describes the rest, with the "
    .. "allocator's headers."
  lines[#lines + 1] = ""
end

--- Returns the page. `plots`: directory of the plots, relative to the page; nil for a page without plots.
function report.page(rows, about, plots)
  local lines = {
    "# Benchmarks",
    "",
    "`sh bench/run.sh` writes this page; [bench/README.md](../bench/README.md) describes how it measures. "
      .. "CPU is the server's CPU time, user and system. A ratio is the median of the ratios within each "
      .. "round, with its quartiles; for CPU and time, less is better. Absolute figures vary from machine to "
      .. "machine, ratios much less.",
    "",
  }
  about_section(lines, about)
  disturbance_section(lines, rows)
  target_section(lines, rows)
  count_section(lines, about)
  noise_section(lines, rows)
  for _, workload in ipairs(workloads) do workload_section(lines, rows, workload, plots) end
  while lines[#lines] == "" do lines[#lines] = nil end
  for i, line in ipairs(lines) do lines[i] = fold(line) end
  return table.concat(lines, "\n") .. "\n"
end

return report
