std = "lua54"
files["spec"] = { std = "+busted" }
-- These run in processes of their own, or are modules, which do not see what busted gives to the files of specs.
files["spec/programs"] = { std = "lua54" }
files["spec/support"] = { std = "lua54" }
exclude_files = { "build*/**", ".luarocks/**", "lua_modules/**" }
