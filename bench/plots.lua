--- The plots: one SVG for each workload, made by gnuplot.

local report = require "bench.report"
local workloads = require "bench.workloads"

local plots = {}

-- Fills and the group that a contender belongs to, by the beginning of its name.
local function colour(name)
  if name:find("^lua%-ip") then return 0x2f6db5 end
  if name:find("^floor") then return 0x8a8a8a end
  return 0xd9a441
end

local X_LABELS = {
  cpu = "server's CPU per datagram",
  rate = "rate",
  round_trip = "median round trip",
}

local function escape(text)
  return (text:gsub("\\", "\\\\"):gsub('"', '\\"'))
end

--- What gnuplot is told to draw a workload: bars of the ratios with their quartiles; nil where there is nothing to compare.
function plots.script(rows, workload, path)
  local ran = report.entries(rows, workload)
  local bars = {}
  for _, entry in ipairs(ran) do
    if entry.ratio then bars[#bars + 1] = entry end
  end
  if #bars < 2 then return nil end

  local data, names, widest = {}, {}, 1
  for i, entry in ipairs(bars) do
    local place, ratio = #bars - i, entry.ratio
    data[i] = ("%d %.4f %.4f %.4f %d"):format(place, ratio.median, ratio.low, ratio.high, colour(entry.name))
    names[i] = ('"%s" %d'):format(escape(entry.name), place)
    widest = math.max(widest, ratio.high)
  end
  local against = workload.baseline == "self" and "the same with few sockets" or workload.baseline
  return table.concat({
    ('set terminal svg size 800,%d dynamic font "sans-serif,13" background "white"'):format(90 + 26 * #bars),
    ('set output "%s"'):format(escape(path)),
    ('set title "%s" noenhanced'):format(escape(workload.title)),
    ('set xlabel "%s as a ratio to %s (median, quartiles)" noenhanced'):format(X_LABELS[workload.figure or "cpu"], against),
    "set ytics (" .. table.concat(names, ", ") .. ") noenhanced scale 0",
    ("set yrange [-0.6:%d.6]"):format(#bars - 1),
    ("set xrange [0:%.3f]"):format(widest * 1.18),
    "set style fill solid noborder",
    "set grid xtics",
    "set border 3",
    "set arrow from 1, graph 0 to 1, graph 1 nohead lw 1 dt 2 front",
    "unset key",
    "$bars << END",
    table.concat(data, "\n"),
    "END",
    'plot $bars using ($2/2):1:($2/2):(0.36):5 with boxxyerror lc rgb variable, \\',
    '  "" using 2:1:3:4 with xerrorbars pt 0 lw 1.5 lc rgb "black", \\',
    '  "" using 4:1:(sprintf(" %.2f", $2)) with labels left offset 0.3,0 noenhanced',
    "",
  }, "\n")
end

--- Draws all plots into `directory`.
function plots.write(rows, directory)
  for _, workload in ipairs(workloads) do
    local script = plots.script(rows, workload, ("%s/%s.svg"):format(directory, workload.id))
    if script then
      local gnuplot = assert(io.popen("gnuplot", "w"))
      gnuplot:write(script)
      assert(gnuplot:close(), "gnuplot failed")
    end
  end
end

return plots
