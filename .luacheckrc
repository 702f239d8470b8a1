std = "lua54"
files["spec"] = { std = "+busted" }
exclude_files = { "build*/**", ".luarocks/**", "lua_modules/**" }
