--- From the rows of a results file to a page of Markdown.

local summary = require "bench.summary"
local targets = require "bench.targets"
local workloads = require "bench.workloads"

local report = {}

local SATURATED = 0.95 -- share of its core below which the client has set the rate

-- --- words ---

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

-- --- a workload ---

local function baseline_of(workload, contender)
  if workload.baseline ~= "self" then return workload.baseline end
  return contender:gsub(", %d+ sockets$", ", " .. workload.variants[1] .. " sockets")
end

-- On one core the rate is that of client and server together, and nobody's alone.
local function rate_cell(own, workload)
  local mark = own.busy.median < SATURATED and not workload.one_core and " \\*" or ""
  return thousands(own.rate.median) .. mark
end

local function loss_cell(own)
  if own.lost == 0 then return "0" end
  return ("%.1f %%"):format(own.lost * 100)
end

-- The columns of a table, by what counts: heads, and cells of a contender.
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

--- What a workload's table and plot are made of: a list of { name, own, ratio } of those that ran, and a list
--- of { name, reason } of those that did not.
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

--- Those of `ran` that a plot shows: nobody's second name. Nil where there is nothing to compare.
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
    cells[i] = { entry.name, with_range(entry.ratio, "%.2f"), table.unpack(heads_and_cells[2](entry.own, workload)) }
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
  -- As many digits count as are shown.
  local shown = tonumber(("%.2f"):format(ratio.median))
  if target.least then return shown >= target[4] end
  return shown <= target[4]
end

local function verdict(target, ratio)
  if not ratio then return "not measured" end
  return is_met(target, ratio) and "yes" or "**no**"
end

-- Says so if the machine was not quiet. Where the client has the same core, it is the one who disturbs.
local function disturbance_section(lines, rows)
  local disturbed, count = 0, 0
  for _, workload in ipairs(workloads) do
    if not workload.one_core then
      local some, of = summary.disturbed(rows, workload.id)
      disturbed, count = disturbed + some, count + of
    end
  end
  if disturbed == 0 then return end
  lines[#lines + 1] = ("**The machine was not quiet**: in %d of %d measurements other processes had the server's core "
    .. "for more than 5 %% of the time. CPU and ratios suffer less from that than rates."):format(disturbed, count)
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
        (target.least and "≥ %.2f" or "≤ %.2f"):format(limit), with_range(ratio, "%.2f"), verdict(target, ratio) }
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
  lines[#lines + 1] = "What stands in the way (instructions counted by callgrind, memory by cachegrind):"
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
  lines[#lines + 1] = "A floor runs twice in each round, under two names. Without noise their ratio would be 1."
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

-- What is counted does not depend on the machine, and is bounded by specs.
local function count_section(lines, about)
  lines[#lines + 1] = "## Counts"
  lines[#lines + 1] = ""
  lines[#lines + 1] = "Free of noise, and therefore bounded by specs that every test run checks."
  lines[#lines + 1] = ""
  local cells = {
    { "system calls per echo, one datagram on its way", "≤ 3.1", "≤ 3.1" },
    { "system calls per echo, saturated", "≤ 2.05", "≤ 2.05" },
    { "system calls per datagram of a batch echo", "≤ 0.08", "≤ 0.08" },
    { "user instructions per echo (`datagrams`, `send_to`)", "≤ 2,000", "≤ 2,000" },
    { "garbage per `receive`, `send` and batch in the steady state", "0 bytes", "0 bytes" },
    { "memory of an idle socket with a fiber waiting on it, 10,000 of them", "≤ 1,800 bytes",
      "≤ 2,048 bytes" .. (about.memory and "; measured: " .. thousands(tonumber(about.memory)) or "") },
  }
  table_of(lines, { "", "target", "bound of the spec" }, cells)
  lines[#lines + 1] = "Memory: about 1,200 bytes of an idle fiber are Lua's, for a thread with the least stack there "
    .. "is and three call records; 160 are libuv's poll handle. What remains, with the allocator's headers, is told in "
    .. "the [design](design/architecture.md#choices-that-measurements-made)."
  lines[#lines + 1] = ""
end

--- The page. `plots`: directory of the plots, relative to the page; nil for a page without.
function report.page(rows, about, plots)
  local lines = {
    "# Benchmarks",
    "",
    "Written by `sh bench/run.sh`; how it measures is told in [bench/README.md](../bench/README.md). CPU is the",
    "server's, user and system. A ratio is the median of the ratios within each round, with its quartiles; where CPU",
    "or time is compared, less is better. Absolute figures move from machine to machine, ratios much less.",
    "",
  }
  about_section(lines, about)
  disturbance_section(lines, rows)
  target_section(lines, rows)
  count_section(lines, about)
  noise_section(lines, rows)
  for _, workload in ipairs(workloads) do workload_section(lines, rows, workload, plots) end
  while lines[#lines] == "" do lines[#lines] = nil end
  return table.concat(lines, "\n") .. "\n"
end

return report
