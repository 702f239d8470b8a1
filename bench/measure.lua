--- measure.lua RESULTS [--rounds N] [--seconds S] [--only WORKLOAD,...] [--contenders NAME,...]
---             [--other TREE]
---
--- Runs the workloads and writes a results file. Within a workload the rounds are interleaved: each round runs
--- every contender once, and starts with a different contender than the previous round. run.sh starts this
--- script, with the directory of the C programs in BENCH_BUILD, and with lines `key: value` on standard input,
--- which go into the file beside the figures.

local contenders = require "bench.contenders"
local results = require "bench.results"
local workloads = require "bench.workloads"

local BUILD = os.getenv("BENCH_BUILD")
local RUNNERS = { lua = os.getenv("LUA_IP_LUA") or "lua5.4", js = "node", py = "python3" }
local FAILURES = 2 -- after so many failures in a workload a contender is left out of its other rounds

-- The output of the driver.
local FIGURES = { "seconds", "datagrams", "lost", "cpu", "delay", "round_trip", "round_trip_p99" }

local options = { rounds = 11, seconds = 0.25 }
local path = assert(arg[1], "no results file")

local function set_of(list)
  local set = {}
  for name in list:gmatch("[^,]+") do set[name:match("^%s*(.-)%s*$")] = true end
  return set
end

for i = 2, #arg, 2 do
  local name, value = arg[i]:match("^%-%-(.*)$"), arg[i + 1]
  if name == "only" or name == "contenders" then
    options[name] = set_of(value)
  elseif name == "other" then
    options.other = value
  elseif options[name or ""] then
    options[name] = assert(tonumber(value), arg[i])
  else
    error("unknown option " .. arg[i], 0)
  end
end

-- --- who takes part ---

local function command(text)
  local file, rest = text:match("^(%S+)(.*)$")
  local name, kind = file:match("([^/]+)%.(%w+)$")
  if kind == "c" then return ("%s/%s%s"):format(BUILD, name, rest) end
  return ("%s bench/%s%s"):format(RUNNERS[kind], file, rest)
end

local function takes_part(contender, workload)
  if not (" " .. contender[3] .. " "):find(" " .. workload.id .. " ", 1, true) then return false end
  -- The baseline is always needed.
  return not options.contenders or options.contenders[contender[1]] or contender[1] == workload.baseline
end

-- Returns a command that runs with the lua-ip of the tree `options.other`.
local function in_other_tree(server)
  return ("env 'LUA_PATH=%s/lua/?.lua;%s/lua/?/init.lua;;' 'LUA_CPATH=%s/build-bench/?.so;;' %s"):format(options.other,
    options.other, options.other, server)
end

local function add_entries(entries, workload, name, server, contender)
  local warm_up = math.max(options.seconds / 5, workload.warm_up or 0, contender.warm_up or 0)
  for _, sockets in ipairs(workload.variants or { false }) do
    entries[#entries + 1] = {
      name = name .. (sockets and (", %d sockets"):format(sockets) or ""),
      command = ("%s/driver %s%s --seconds %g --warm-up %g -- %s%s 2>&1"):format(BUILD, workload.driver,
        sockets and " --sockets " .. sockets or "", options.seconds, warm_up, server,
        workload.id == "bulk" and " -- " .. server or ""),
    }
  end
end

-- Returns the runs of each round of a workload: names with the command lines of the driver.
local function entries_of(workload)
  local entries = {}
  for _, contender in ipairs(contenders) do
    if takes_part(contender, workload) then
      local name, server = contender[1], command(contender[2])
      add_entries(entries, workload, name, server, contender)
      if options.other and name:find("^lua%-ip") then
        add_entries(entries, workload, name .. " (other tree)", in_other_tree(server), contender)
      end
    end
  end
  return entries
end

-- --- running ---

local function run(entry)
  local pipe = assert(io.popen(entry.command))
  local line = pipe:read("l") or "failed: the driver said nothing"
  pipe:close()
  local row = { contender = entry.name }
  local figures = line:match("^ok (.*)$")
  if figures then
    row.status = "ok"
    local field = figures:gmatch "%S+"
    for _, name in ipairs(FIGURES) do row[name] = field() end
  else
    row.status, row.reason = line:match("^(%w+): (.*)$")
    if not row.reason then row.status, row.reason = "failed", line end
    row.reason = row.reason:gsub("\t", " ")
  end
  return row
end

local on_terminal = os.getenv("BENCH_TERMINAL") == "yes"
local function progress(text)
  io.stderr:write(on_terminal and "\r\27[K" or "", text, on_terminal and "" or "\n")
  io.stderr:flush()
end

local function run_round(workload, round, entries, writer, planned)
  for i = 1, #entries do
    local entry = entries[(i + round - 2) % #entries + 1]
    if on_terminal then
      progress(("%s, %s: round %d of %d: %s"):format(planned, workload.id, round, options.rounds, entry.name))
    end
    if (entry.failures or 0) < FAILURES then
      local row = run(entry)
      row.workload, row.round = workload.id, round
      if row.status == "failed" then entry.failures = (entry.failures or 0) + 1 end
      if row.status == "unavailable" then entry.failures = FAILURES end
      writer.row(row)
    end
  end
end

local function chosen()
  local list, known = {}, {}
  for _, workload in ipairs(workloads) do
    known[workload.id] = true
    if not options.only or options.only[workload.id] then list[#list + 1] = workload end
  end
  for id in pairs(options.only or {}) do
    if not known[id] then error("unknown workload " .. id, 0) end
  end
  local names = {}
  for _, contender in ipairs(contenders) do names[contender[1]] = true end
  for name in pairs(options.contenders or {}) do
    if not names[name] then error("unknown contender " .. name, 0) end
  end
  return list
end

local list = chosen()
local writer = results.writer(path)
writer.about("rounds", options.rounds)
writer.about("seconds", options.seconds)
for line in io.lines() do
  local key, value = line:match("^(.-): *(.*)$")
  if key then writer.about(key, value) end
end
for number, workload in ipairs(list) do
  local entries = entries_of(workload)
  for round = 1, options.rounds do
    local planned = ("workload %d of %d"):format(number, #list)
    if not on_terminal then progress(("%s, %s: round %d of %d"):format(planned, workload.id, round, options.rounds)) end
    run_round(workload, round, entries, writer, planned)
  end
end
if on_terminal then progress("") end
writer.close()
