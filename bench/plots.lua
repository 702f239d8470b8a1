--- The plots: one SVG for each workload, made by gnuplot.

local report = require "bench.report"
local workloads = require "bench.workloads"

local plots = {}

-- One colour for lua-ip, one for the floors, one for the other contenders.
local function colour(name)
  if name:find("^lua%-ip") then return 0x2f6db5 end
  if name:find("^floor") then return 0x8a8a8a end
  return 0xd9a441
end

local FIGURES = {
  cpu = "server's CPU per datagram",
  rate = "rate",
  round_trip = "median round trip",
}

local LONGEST = 4 -- the ratio at which a bar is cut off, so that the short ones can be told apart

local function shown(ratio)
  return math.min(ratio, LONGEST)
end

local function escape(text)
  return (text:gsub("\\", "\\\\"):gsub('"', '\\"'))
end

--- Returns the gnuplot script for a workload: bars of the ratios with their quartiles; nil if there is
--- nothing to compare.
function plots.script(rows, workload, path)
  local bars = report.bars((report.entries(rows, workload)))
  if not bars then return nil end

  local data, names, widest = {}, {}, 1
  for i, entry in ipairs(bars) do
    local place, ratio = #bars - i, entry.ratio
    local length, low, high = shown(ratio.median), shown(ratio.low), shown(ratio.high)
    local cut = ratio.median > LONGEST and " →" or ""
    data[i] = ('%d %.4f %.4f %.4f %d "%.2f%s"'):format(place, length, low, high, colour(entry.name), ratio.median, cut)
    names[i] = ('"%s" %d'):format(escape(entry.name), place)
    widest = math.max(widest, high)
  end
  local against = workload.baseline == "self" and "the same with few sockets" or workload.baseline
  return table.concat({
    ('set terminal svg size 800,%d dynamic font "sans-serif,13" background "white"'):format(110 + 26 * #bars),
    ('set output "%s"'):format(escape(path)),
    ('set title "%s: %s" noenhanced'):format(escape(workload.title), FIGURES[workload.figure or "cpu"]),
    ('set xlabel "ratio to %s (median and quartiles)" noenhanced'):format(against),
    "set ytics (" .. table.concat(names, ", ") .. ") noenhanced scale 0",
    ("set yrange [-0.6:%d.6]"):format(#bars - 1),
    ("set xrange [0:%.3f]"):format(widest * 1.18),
    "set style fill solid noborder",
    "set grid xtics",
    "set border 3",
    "set xtics nomirror",
    "set arrow from 1, graph 0 to 1, graph 1 nohead lw 1 dt 2 front",
    "unset key",
    "$bars << END",
    table.concat(data, "\n"),
    "END",
    'plot $bars using ($2/2):1:($2/2):(0.36):5 with boxxyerror lc rgb variable, \\',
    '  "" using 2:1:3:4 with xerrorbars pt 0 lw 1.5 lc rgb "black", \\',
    '  "" using 4:1:6 with labels left offset 0.8,0 noenhanced',
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
