--- Computes medians and ratios from the rows of a results file. A ratio is the median of the ratios within
--- each round.

local summary = {}

local DISTURBED = 0.05

-- Returns the `p` quantile of the sorted `values`, interpolated.
local function quantile(values, p)
  local place = 1 + (#values - 1) * p
  local low = math.floor(place)
  local high = math.min(low + 1, #values)
  return values[low] + (values[high] - values[low]) * (place - low)
end

--- Sorts `values`, and returns their median and quartiles; nil if there are none.
function summary.spread(values)
  if #values == 0 then return nil end
  table.sort(values)
  local low, median, high = quantile(values, 0.25), quantile(values, 0.5), quantile(values, 0.75)
  return { median = median, low = low, high = high, count = #values }
end

local function per_datagram(row) return row.cpu / row.datagrams end
local function rate(row) return row.datagrams / row.seconds end

--- The figures that workloads compare, by their names in workloads.lua.
summary.figures = {
  cpu = per_datagram,
  rate = rate,
  round_trip = function(row) return row.round_trip end,
}

local function measured(rows, workload, contender)
  local found = {}
  for _, row in ipairs(rows) do
    local fits = row.workload == workload and row.contender == contender
    if fits and row.status == "ok" then found[#found + 1] = row end
  end
  return found
end

local function spread_of(rows, read)
  local values = {}
  for i, row in ipairs(rows) do values[i] = read(row) end
  return summary.spread(values)
end

--- Returns the ratio of `contender` to `baseline` as a spread; nil if they share no round.
function summary.ratio(rows, workload, contender, baseline, figure)
  local read = summary.figures[figure or "cpu"]
  local by_round, values = {}, {}
  for _, row in ipairs(measured(rows, workload, baseline)) do by_round[row.round] = read(row) end
  for _, row in ipairs(measured(rows, workload, contender)) do
    local base = by_round[row.round]
    if base then values[#values + 1] = read(row) / base end
  end
  return summary.spread(values)
end

--- Returns the figures of a contender: the spreads `cpu` (nanoseconds per datagram), `rate`, `busy` (share of
--- the core), `round_trip`, `round_trip_p99`, and the share `lost`; nil and the reason if it was not
--- measured.
function summary.contender(rows, workload, contender)
  local own = measured(rows, workload, contender)
  if #own == 0 then
    for _, row in ipairs(rows) do
      if row.workload == workload and row.contender == contender then return nil, row.reason end
    end
    return nil, "it did not run"
  end
  local lost, handled = 0, 0
  for _, row in ipairs(own) do lost, handled = lost + row.lost, handled + row.datagrams end
  return {
    cpu = spread_of(own, per_datagram),
    rate = spread_of(own, rate),
    busy = spread_of(own, function(row) return row.cpu / 1e9 / row.seconds end),
    round_trip = spread_of(own, summary.figures.round_trip),
    round_trip_p99 = spread_of(own, function(row) return row.round_trip_p99 end),
    lost = lost / (lost + handled),
  }
end

--- Returns whether the contender ran, or tried to run, in a workload.
function summary.took_part(rows, workload, contender)
  for _, row in ipairs(rows) do
    if row.workload == workload and row.contender == contender then return true end
  end
  return false
end

--- Returns the number of disturbed measurements in `workload`, and the number of all measurements. In a
--- disturbed measurement another process had the server's core for more than a twentieth of the time.
function summary.disturbed(rows, workload)
  local disturbed, count = 0, 0
  for _, row in ipairs(rows) do
    if row.workload == workload and row.status == "ok" then
      count = count + 1
      if row.delay / 1e9 / row.seconds > DISTURBED then disturbed = disturbed + 1 end
    end
  end
  return disturbed, count
end

--- The contenders that have rows in a workload, in the order of their first rows.
function summary.contenders(rows, workload)
  local names, seen = {}, {}
  for _, row in ipairs(rows) do
    if row.workload == workload and not seen[row.contender] then
      seen[row.contender] = true
      names[#names + 1] = row.contender
    end
  end
  return names
end

return summary
